/* The processes that build environments, for a node: what the agent asks for, and what they answer.
 *
 * Thread: the control thread.
 */
#pragma once

#include "cmd/launch.h"
#include "core/loop/loop.h"

struct rs_envs;

struct rs_envs *rs_envs_new(struct rs_loop *loop, const struct rs_launch_conf *launch,
                            struct rs_keeper *keeper, struct rs_agent *agent);
void rs_envs_free(struct rs_envs *v); /* before the keeper; NULL is fine */

/* The agent's op env_start. */
RS_MUST_CHECK int rs_envs_start(struct rs_envs *v, const struct rs_agent_env *e, pid_t *pid,
                                struct rs_error *err);
/* A process ended. False: it was none of these. */
bool rs_envs_exited(struct rs_envs *v, const char *id, int status, const char *output);
