/* Child processes that cannot get lost.
 *
 * sched/supervise acts where the rest of sched decides: processes, their output, and what is left of
 * them. It may include core/base and core/loop.
 *
 * A child runs in its own session and process group, with exactly the descriptors that it was
 * given, and gets SIGKILL when this process dies (PR_SET_PDEATHSIG; sched/supervise/guard.h covers
 * what that misses). Its end is an event on a pidfd: no SIGCHLD handler, no pid that is mistaken for
 * another one. "Cannot execute X" comes back through an error pipe as the error of rs_spawn.
 *
 * Thread: the loop's; PDEATHSIG is bound to the thread that spawned, which must live as long as the
 *         process does: spawn on the main thread.
 */
#pragma once

#include "core/base/error.h"
#include "core/loop/loop.h"

#include <sys/types.h>

struct rs_spawn_fd {
    int fd; /* here; stays the caller's */
    int as; /* number in the child, >= 0 */
};

struct rs_spawn {
    const char *const *argv;       /* argv[0] is looked up in PATH of the new environment */
    const char *program;           /* the file that is executed; NULL: that of argv[0] */
    const char *const *env;        /* the whole environment, "NAME=value"; NULL: as here */
    const char *cwd;               /* NULL: as here */
    const struct rs_spawn_fd *fds; /* 0, 1 and 2 that are not named read and write /dev/null */
    size_t n_fds;
};

/* Embedded in what it serves; zero-initialise. */
struct rs_child {
    struct rs_io io;   /* io.fd is the pidfd, -1 or 0 before start */
    struct rs_list in; /* all that are watched */
    pid_t pid;         /* 0: none, or reaped */
    bool foreign;      /* made by someone else, re-parented to us */
    /* The process ended and was reaped. `status` as of waitpid. The child may be freed in here. */
    void (*on_exit)(struct rs_child *child, int status);
};

/* Starts and watches. `child->on_exit` is set by the caller. */
RS_MUST_CHECK int rs_spawn(struct rs_child *child, struct rs_loop *loop,
                           const struct rs_spawn *spec, struct rs_error *err);
/* Watches a process that was made for us by another one and is our child by now, or is about to be
 * (its maker waits until it is). */
RS_MUST_CHECK int rs_child_adopt(struct rs_child *child, struct rs_loop *loop, pid_t pid,
                                 struct rs_error *err);
/* To the whole process group; to the process alone where it leads none. Nothing if it is gone. */
void rs_child_kill(struct rs_child *child, int signal);
/* Stops watching without waiting for the end; a process that runs on is left to rs_reap. */
void rs_child_release(struct rs_child *child);

/* Orphans below this process become its children. Once, at start. */
RS_MUST_CHECK int rs_subreaper(struct rs_error *err);
/* Reaps children that no rs_child watches (grandchildren that were re-parented). Call at times, and at
 * the end. Returns how many it reaped. */
unsigned rs_reap(void);

/* "exited with status 3", "was killed by SIGKILL (9)". Fits in 64 bytes. */
void rs_exit_text(int status, char *buf, size_t size);

/* Environments: a list of "NAME=value" that ends with NULL. */
struct rs_env {
    char **list;
    size_t n, cap;
};
void rs_env_copy(struct rs_env *e, char *const *from); /* NULL-ended; e.g. environ */
void rs_env_set(struct rs_env *e, const char *name, const char *value); /* NULL: removes */
void rs_env_put(struct rs_env *e, const char *assignment);              /* "NAME=value" */
const char *rs_env_get(const struct rs_env *e, const char *name);       /* NULL: none */
const char *const *rs_env_list(struct rs_env *e);
void rs_env_fini(struct rs_env *e);
