// `tessera`: the command-line client.
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <iostream>

#include "client/commands/commands.h"

int main(int argc, char** argv) {
  // With SIGPIPE ignored, a closed pipe is a failed write that gets a message.
  signal(SIGPIPE, SIG_IGN);
  tessera::client::Interrupt interrupt;
  tessera::client::InterruptSignal interrupt_signal(&interrupt);

  tessera::client::Io io;
  io.in_fd = STDIN_FILENO;
  io.in_terminal = isatty(STDIN_FILENO) != 0;
  io.out = &std::cout;
  io.out_terminal = isatty(STDOUT_FILENO) != 0;
  io.err = &std::cerr;
  io.err_terminal = isatty(STDERR_FILENO) != 0;
  io.interrupt = &interrupt;
  winsize size;
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) io.columns = size.ws_col;
  return tessera::client::RunTessera(tessera::client::Args(argv + 1, argv + argc), io);
}
