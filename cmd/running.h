/* Which nodes of this user run on this machine: a small file for each, which the node itself holds
 * locked for as long as it lives.
 *
 *   BASE/instances/NODE-ID.json   BASE as in sched/supervise/statedir.h, whatever --state-dir says, so
 *                                 that `ray stop` and `serve status` find a node without its options
 *
 * The lock is one of the process (fcntl), so the kernel names its holder: a file that nobody holds is
 * left over and removed by the next look, and no pid is ever mistaken for another process.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/base/error.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Text borrowed from whoever filled it; "" where there is none. */
struct rs_running {
    pid_t pid;        /* filled by rs_running_read */
    const char *kind; /* "run", "head" or "worker" */
    const char *node_id;
    const char *dashboard; /* HOST:PORT of the REST API */
    const char *join;      /* HOST:PORT where workers join */
    const char *http;      /* HOST:PORT of the ingress */
    double started;        /* wall clock, seconds */
};

struct rs_running_file;
/* Tells others of this process. */
RS_MUST_CHECK int rs_running_announce(struct rs_running_file **ret, const struct rs_running *me,
                                      struct rs_error *err);
void rs_running_withdraw(struct rs_running_file *file); /* NULL is fine */

struct rs_running_all {
    struct rs_running *items; /* the newest first */
    size_t count;
    void *storage;
};
/* Never fails: what cannot be read is not there. */
void rs_running_read(struct rs_running_all *ret);
void rs_running_fini(struct rs_running_all *all);
/* The newest head, or `run` where there is none; NULL. */
const struct rs_running *rs_running_head(const struct rs_running_all *all);
