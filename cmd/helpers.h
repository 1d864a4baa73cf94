/* User code in the control path: a Python process beside the node for the autoscaling policies of an
 * application, one for its request routers. Each is started when it is first asked, started again
 * with a growing pause when it dies or hangs, and ended with the code that it was made from.
 *
 * The node goes on without them: a question that cannot be put is refused at once, and `lost` tells
 * of questions that will find no answer.
 *
 * Thread: the control thread.
 */
#pragma once

#include "cmd/launch.h"
#include "core/base/cleanup.h"
#include "core/loop/loop.h"
#include "net/wire/frame.h"
#include "sched/agent.h"

#include <jansson.h>

struct rs_helpers;

struct rs_helpers_ops {
    /* FORK by a zygote with three descriptors, which it takes, also on failure. -1: it is gone. */
    int (*fork)(const char *zygote, const json_t *msg, int fds[3], void *arg, struct rs_error *err);
    void (*answer)(const char *role, const char *app, enum rs_msg type, uint64_t stream,
                   json_t *msg, void *arg);
    /* The process ended or hung up: no answers will come. */
    void (*lost)(const char *role, const char *app, const char *why, void *arg);
};

struct rs_helpers_conf {
    struct rs_loop *loop;
    struct rs_agent *agent;
    struct rs_keeper *keeper;
    const struct rs_launch_conf *launch;
};

struct rs_helpers *rs_helpers_new(const struct rs_helpers_conf *conf,
                                  const struct rs_helpers_ops *ops, void *arg);
void rs_helpers_free(struct rs_helpers *h); /* the keeper ends the processes */

/* Sends a question to the helper of `role` ("policy", "router") of an application, started if need
 * be. `answered`: one is owed for it. -1: it cannot be asked now, `err` says why. */
RS_MUST_CHECK int rs_helpers_ask(struct rs_helpers *h, const char *role, const char *app,
                                 enum rs_msg type, uint64_t stream, const json_t *msg,
                                 bool answered, struct rs_error *err);
/* It will be asked: it is started as soon as the application is there, and again when it ends. */
void rs_helpers_want(struct rs_helpers *h, const char *role, const char *app);
/* A new TARGET is known: helpers of code that it does not name end. */
void rs_helpers_target(struct rs_helpers *h);
/* A process ended: true if it was a helper. */
bool rs_helpers_exited(struct rs_helpers *h, const char *id, int wait_status, const char *output);
/* A zygote ended: what it had not said to have forked never was. */
void rs_helpers_zygote_exited(struct rs_helpers *h, const char *zygote);
void rs_helpers_stop(struct rs_helpers *h); /* all of them, for good */

void rs_helpers_tick(struct rs_helpers *h, int64_t now);
int64_t rs_helpers_deadline(const struct rs_helpers *h); /* INT64_MAX: none */
