/* The processes of a node by name: spawn, capture, watch, kill. What cmd/node.c needs between the
 * agent's ops and the kernel.
 *
 * Thread: the loop's.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/base/error.h"
#include "core/loop/loop.h"
#include "sched/supervise/capture.h"
#include "sched/supervise/spawn.h"

struct rs_keeper;

struct rs_keeper_ops {
    /* The process `id` ended. `output`: last lines of its stderr, "" if none. The name is free again
     * when this returns. */
    void (*on_exit)(const char *id, int wait_status, const char *output, void *arg);
};

RS_MUST_CHECK int rs_keeper_new(struct rs_keeper **ret, struct rs_loop *loop,
                                struct rs_capture_hub *hub, const struct rs_keeper_ops *ops,
                                void *arg, struct rs_error *err);
/* Kills what is left (SIGKILL) and reaps it. */
void rs_keeper_free(struct rs_keeper *k);
RS_DEFINE_AUTO(struct rs_keeper *, rs_keeper_free);

/* Starts a process with its stdout and stderr captured under `label`. `spec->fds` must not name 1
 * and 2. */
RS_MUST_CHECK int rs_keeper_spawn(struct rs_keeper *k, const char *id, const char *label,
                                  const struct rs_spawn *spec, pid_t *pid, struct rs_error *err);
/* Makes the pipes for a process that someone else (a zygote) will make: pass *out_fd and *err_fd on
 * and close them. rs_keeper_adopt names its pid, or rs_keeper_forget says that it never came. */
RS_MUST_CHECK int rs_keeper_expect(struct rs_keeper *k, const char *id, const char *label,
                                   int *out_fd, int *err_fd, struct rs_error *err);
RS_MUST_CHECK int rs_keeper_adopt(struct rs_keeper *k, const char *id, pid_t pid,
                                  struct rs_error *err);
bool rs_keeper_forget(struct rs_keeper *k, const char *id); /* false: it is not waited for */

void rs_keeper_kill(struct rs_keeper *k, const char *id, int signal); /* unknown id: nothing */
size_t rs_keeper_count(const struct rs_keeper *k);                    /* processes that live */
/* Reaps grandchildren that were re-parented to us and have ended. Call every second or so. */
void rs_keeper_reap(struct rs_keeper *k);
