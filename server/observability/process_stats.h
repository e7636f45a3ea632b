// Statistics of this process from /proc; 0 if it lacks them. Threads: safe.
#pragma once

namespace tessera {

double ProcessResidentBytes();
double ProcessCpuSeconds();  // user and system
double ProcessOpenFiles();

}  // namespace tessera
