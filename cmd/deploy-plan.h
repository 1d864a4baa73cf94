/* `rserve deploy` without deploying, or backwards: --plan, --history, --rollback.
 */
#pragma once

#include "cmd/remote.h"
#include "core/base/error.h"

#include <jansson.h>
#include <stdbool.h>

/* What deploying `doc` would do, on standard output. `no_restart`: RS_CONFLICT, after all of it was told, if
 * it would restart replicas. */
RS_MUST_CHECK int rs_deploy_plan(const struct rs_remote *r, const json_t *doc, bool json,
                                 bool no_restart, struct rs_error *err);
/* The configurations of an application that ran, on standard output. */
RS_MUST_CHECK int rs_deploy_history(const struct rs_remote *r, const char *app, bool json,
                                    struct rs_error *err);
/* Orders it; *ret is the revision. `to` 0: the last one that ran before. */
RS_MUST_CHECK int rs_deploy_rollback(const struct rs_remote *r, const char *app, int64_t to,
                                     int64_t *ret, struct rs_error *err);
/* `action`: "resume" or "abort" of the rollouts of an application. */
RS_MUST_CHECK int rs_deploy_roll(const struct rs_remote *r, const char *app, const char *action,
                                 struct rs_error *err);
/* Nothing of an application more happens before somebody says so: its rollout is paused. Tells, once it
 * is so, on standard output. `details`: extended. */
bool rs_deploy_paused(const json_t *app, const char *name, bool tell);
/* For the applications of `doc` that have failed: the command that goes back, on standard output.
 * `address`: as it was given; NULL. */
void rs_deploy_tell_way_back(const struct rs_remote *r, const json_t *doc, const char *address);
