#include "core/base/machine.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

unsigned rs_machine_cores(void)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof(set), &set) < 0 || CPU_COUNT(&set) < 1)
        return 1;
    return (unsigned)CPU_COUNT(&set);
}

uint64_t rs_machine_memory(void)
{
    uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    FILE *f = fopen("/sys/fs/cgroup/memory.max", "re");
    char line[32];

    if (f && fgets(line, sizeof(line), f)) {
        uint64_t limit = strtoull(line, NULL, 10); /* "max": 0 */

        if (limit && limit < memory)
            memory = limit;
    }
    if (f)
        fclose(f);
    return memory;
}
