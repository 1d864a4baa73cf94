/* The states of a replica on its node (enum rs_replica_state in core/model/report.h) as one table: state
 * x event -> state. Pure; sched/agent-replica.c acts on what it says.
 *
 * Events that come from outside (what a process says, its end) are known in every state: a process may
 * say what it likes. One that the agent makes itself and that is not in the table is a defect of the
 * agent: nothing changes, and it is logged.
 */
#pragma once

#include "core/model/report.h"

#define RS_REPLICA_EVENTS(X)                                                                       \
    X(LAUNCHED, "its process is made")                                                             \
    X(LOST, "its process never came to be")                                                        \
    X(READY, "it is ready")                                                                        \
    X(FAILED, "it failed to start")                                                                \
    X(TUNE, "it is reconfigured")                                                                  \
    X(CUT, "it closed its connection")                                                             \
    X(RETIRE, "it finishes its requests")                                                          \
    X(IDLE, "it has no request left")                                                              \
    X(LATE, "its time to finish is over")                                                          \
    X(KILL, "it is killed")                                                                        \
    X(EXITED, "its process ended")
#define RS_X(name, text) RS_REPLICA_ON_##name,
enum rs_replica_event { RS_REPLICA_EVENTS(RS_X) RS_REPLICA_EVENT_COUNT };
#undef RS_X

enum rs_replica_move {
    RS_REPLICA_DEFECT, /* the table does not know the pair */
    RS_REPLICA_STAYS,  /* nothing new */
    RS_REPLICA_MOVES   /* to *s, which may be where it was */
};

/* *s is untouched unless RS_REPLICA_MOVES. */
enum rs_replica_move rs_replica_step(enum rs_replica_state *s, enum rs_replica_event event);
const char *rs_replica_event_name(enum rs_replica_event event); /* "RETIRE" */
const char *rs_replica_event_text(enum rs_replica_event event); /* "it finishes its requests" */
