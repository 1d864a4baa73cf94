/* Nothing survives rserve, not even its own kill -9.
 *
 * Every process below a node carries RSERVE_INSTANCE=<id> in its environment. A tiny process, the
 * guard, is forked at start and holds the end of a pipe: when rserve is gone, however it went, the
 * pipe closes and the guard sends SIGKILL to every process with that mark, until there is none, and
 * ends. On a normal stop rserve tells it to do its sweep and waits for it.
 *
 * Processes that cleared their environment by exec are missed by the mark; they still have the
 * process group and PR_SET_PDEATHSIG against them.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/base/error.h"

#include <sys/types.h>

struct rs_guard;

#define RS_INSTANCE_ENV "RSERVE_INSTANCE"

/* Before any thread starts. `instance`: the mark's value, letters, digits, '-' and '_'. */
RS_MUST_CHECK int rs_guard_new(struct rs_guard **ret, const char *instance, struct rs_error *err);
/* Tells the guard to sweep and waits for its end (bounded). */
void rs_guard_free(struct rs_guard *g);
RS_DEFINE_AUTO(struct rs_guard *, rs_guard_free);
pid_t rs_guard_pid(const struct rs_guard *g);

/* SIGKILL to all processes with the mark but this one and `except`; returns how many there were. */
unsigned rs_guard_sweep(const char *instance, pid_t except);
