// What the system knows of this process. 0 where /proc does not tell. Threads: safe.
#pragma once

namespace tessera {

double ProcessResidentBytes();
double ProcessCpuSeconds();  // user and system
double ProcessOpenFiles();

}  // namespace tessera
