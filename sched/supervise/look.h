/* What the kernel tells of processes and of want of memory: /proc and the cgroup that this process is in.
 *
 * Thread: any; files are read at once.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct rs_process_look {
    char state;      /* as in /proc/PID/stat: 'R', 'S', 'D', 'T' (stopped), 't' (traced), 'Z', .. */
    uint64_t memory; /* bytes that it has in memory */
};

/* False: there is no such process. */
bool rs_process_look(pid_t pid, struct rs_process_look *ret);

/* How often the kernel ended a process for want of memory. */
struct rs_oom {
    char *cgroup;                   /* file of the counter of this cgroup and those below; NULL */
    char *machine;                  /* that of the machine; NULL */
    uint64_t in_cgroup, on_machine; /* what they said last */
};

/* `root`: "" or a folder that stands for "/". */
void rs_oom_init(struct rs_oom *o, const char *root);
void rs_oom_fini(struct rs_oom *o);

enum rs_oom_seen { RS_OOM_NONE, RS_OOM_MACHINE, RS_OOM_CGROUP };
/* What rose since the last look, and by how much. MACHINE: some process of the machine, perhaps another. */
enum rs_oom_seen rs_oom_look(struct rs_oom *o, uint64_t *kills);
