#include "server/load_model.h"
#include "server/serve.h"

int main(int argc, char** argv) { return tessera::Serve(argc, argv, tessera::OpenDevice); }
