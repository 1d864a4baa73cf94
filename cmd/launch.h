/* What exactly is executed for a zygote or a replica: command line, environment, descriptors.
 *
 * Thread: the control thread.
 */
#pragma once

#include "core/base/error.h"
#include "core/base/map.h"
#include "sched/agent.h"
#include "sched/supervise/keeper.h"

struct rs_launch_conf {
    char *python;        /* default interpreter */
    char *python_zip;    /* path of the embedded library */
    char *run_dir;       /* for Unix sockets of HTTP replicas */
    struct rs_map where; /* replica id -> struct rs_launched, of HTTP replicas */
};

/* Where an HTTP replica listens. */
struct rs_launched {
    int fd;
    uint16_t port;     /* 0: it listens on socket_path */
    char *socket_path; /* NULL: it listens on port */
};

void rs_launch_init(struct rs_launch_conf *c, const char *python, const char *python_zip,
                    const char *run_dir);
void rs_launch_fini(struct rs_launch_conf *c);

/* `fd` is the child's end of its connection; it stays the caller's. */
RS_MUST_CHECK int rs_launch_zygote(const struct rs_launch_conf *c, struct rs_keeper *k,
                                   const struct rs_agent_zygote *z, int fd, pid_t *pid,
                                   struct rs_error *err);
/* The builder of an environment; `fd` as above. */
RS_MUST_CHECK int rs_launch_env(const struct rs_launch_conf *c, struct rs_keeper *k,
                                const struct rs_agent_env *e, int fd, pid_t *pid,
                                struct rs_error *err);
/* For an HTTP replica `where` says where it was told to listen. */
RS_MUST_CHECK int rs_launch_replica(const struct rs_launch_conf *c, struct rs_keeper *k,
                                    const struct rs_agent_start *s, const char *label, int fd,
                                    struct rs_launched *where, pid_t *pid, struct rs_error *err);

/* A fresh interpreter for user code in the control path. */
struct rs_launch_helper {
    const char *id, *label;
    const char *role;             /* "policy" or "router" */
    const char *python, *app_dir; /* NULL: the node's default; none */
    const json_t *ready;          /* its environment, as ENV_READY told; NULL: none was built */
    const json_t *env_vars;       /* object; NULL: none */
};
RS_MUST_CHECK int rs_launch_helper(const struct rs_launch_conf *c, struct rs_keeper *k,
                                   const struct rs_launch_helper *x, int fd, struct rs_error *err);

/* Remembers (takes `where`), finds and forgets where a replica listens. */
void rs_launch_note(struct rs_launch_conf *c, const char *replica_id, struct rs_launched *where);
const struct rs_launched *rs_launch_where(const struct rs_launch_conf *c, const char *replica_id);
void rs_launch_forget(struct rs_launch_conf *c, const char *replica_id);
