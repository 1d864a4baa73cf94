/* The node's part of `rserve logs`: questions of the head about what processes here printed (LOGS), and
 * their answers out of the journal (LOG_LINES). A question that waits for lines is parked; many lines in a
 * moment are one answer.
 *
 * Bounds:  RS_NODE_LOGS_WAITING parked questions; beyond, the oldest is answered without lines.
 * Thread:  the control thread.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/loop/loop.h"
#include "sched/supervise/journal.h"

#include <jansson.h>
#include <stdint.h>

enum { RS_NODE_LOGS_WAITING = 64 };

struct rs_node_logs;

/* `answer` sends LOG_LINES. Borrows all but the ops. */
struct rs_node_logs *rs_node_logs_new(struct rs_loop *loop, struct rs_journal *journal,
                                      const char *node_name,
                                      void (*answer)(uint64_t stream, const json_t *msg, void *arg),
                                      void *arg);
void rs_node_logs_free(struct rs_node_logs *l);
RS_DEFINE_AUTO(struct rs_node_logs *, rs_node_logs_free);

void rs_node_logs_asked(struct rs_node_logs *l, uint64_t stream, const json_t *msg);
void rs_node_logs_head_gone(struct rs_node_logs *l); /* nobody waits any more */
