/* What of the machine this process may use, which in a container is not all of it. Any thread. */
#pragma once

#include <stdint.h>

unsigned rs_machine_cores(void);  /* that it may run on; at least 1 */
uint64_t rs_machine_memory(void); /* bytes: those of the machine, or of its cgroup (v2) */
