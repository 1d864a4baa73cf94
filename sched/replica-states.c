#include "sched/replica-states.h"

static const struct {
    const char *name, *text;
} events[] = {
#define RS_X(name, text) {#name, text},
    RS_REPLICA_EVENTS(RS_X)
#undef RS_X
};

const char *rs_replica_event_name(enum rs_replica_event event)
{
    return event < RS_REPLICA_EVENT_COUNT ? events[event].name : "?";
}

const char *rs_replica_event_text(enum rs_replica_event event)
{
    return event < RS_REPLICA_EVENT_COUNT ? events[event].text : "?";
}

struct cell {
    enum rs_replica_move move;
    enum rs_replica_state to;
};

#define ON(event) [RS_REPLICA_ON_##event]
#define TO(state)                                                                                  \
    {                                                                                              \
        RS_REPLICA_MOVES, RS_REPLICA_##state                                                       \
    }
#define STAY                                                                                       \
    {                                                                                              \
        .move = RS_REPLICA_STAYS                                                                   \
    }
/* It was told to go, or is gone: of what it says nothing counts any more. */
#define DEAF ON(READY) = STAY, ON(FAILED) = STAY, ON(TUNE) = STAY, ON(RETIRE) = STAY, ON(CUT) = STAY

static const struct cell cells[RS_REPLICA_STATE_COUNT][RS_REPLICA_EVENT_COUNT] = {
    /* No process yet: nothing to wait for. */
    [RS_REPLICA_PENDING] = {ON(LAUNCHED) = TO(STARTING), ON(LOST) = TO(STOPPED), ON(READY) = STAY,
                            ON(FAILED) = STAY, ON(TUNE) = STAY, ON(CUT) = STAY,
                            ON(RETIRE) = TO(STOPPED), ON(IDLE) = STAY, ON(KILL) = TO(STOPPED),
                            ON(EXITED) = TO(STOPPED)},
    /* CUT: the end of the process will tell more. TUNE: INIT is under way, afterwards. */
    [RS_REPLICA_STARTING] = {ON(LOST) = TO(STOPPED), ON(READY) = TO(RUNNING),
                             ON(FAILED) = TO(STOPPING), ON(TUNE) = STAY, ON(CUT) = TO(STOPPING),
                             ON(RETIRE) = TO(STOPPING), ON(IDLE) = STAY, ON(KILL) = TO(STOPPING),
                             ON(EXITED) = TO(STOPPED)},
    [RS_REPLICA_RUNNING] = {ON(LOST) = TO(STOPPED), ON(READY) = STAY, ON(FAILED) = STAY,
                            ON(TUNE) = TO(UPDATING), ON(CUT) = TO(STOPPING),
                            ON(RETIRE) = TO(DRAINING), ON(IDLE) = STAY, ON(KILL) = TO(STOPPING),
                            ON(EXITED) = TO(STOPPED)},
    /* FAILED: the new options do not suit it; what it works on it still finishes. */
    [RS_REPLICA_UPDATING] = {ON(LOST) = TO(STOPPED), ON(READY) = TO(RUNNING),
                             ON(FAILED) = TO(DRAINING), ON(TUNE) = STAY, ON(CUT) = TO(STOPPING),
                             ON(RETIRE) = TO(DRAINING), ON(IDLE) = STAY, ON(KILL) = TO(STOPPING),
                             ON(EXITED) = TO(STOPPED)},
    [RS_REPLICA_DRAINING] = {ON(LOST) = TO(STOPPED), ON(READY) = STAY, ON(FAILED) = STAY,
                             ON(TUNE) = STAY, ON(CUT) = TO(STOPPING), ON(RETIRE) = STAY,
                             ON(IDLE) = TO(STOPPING), ON(LATE) = TO(STOPPING),
                             ON(KILL) = TO(STOPPING), ON(EXITED) = TO(STOPPED)},
    /* KILL and LATE: harder signals, the state is the same. */
    [RS_REPLICA_STOPPING] = {DEAF, ON(LOST) = TO(STOPPED), ON(IDLE) = STAY, ON(LATE) = STAY,
                             ON(KILL) = STAY, ON(EXITED) = TO(STOPPED)},
    [RS_REPLICA_STOPPED] = {DEAF, ON(LOST) = STAY, ON(IDLE) = STAY, ON(KILL) = STAY,
                            ON(EXITED) = STAY},
};

enum rs_replica_move rs_replica_step(enum rs_replica_state *s, enum rs_replica_event event)
{
    const struct cell *c;

    if (*s >= RS_REPLICA_STATE_COUNT || event >= RS_REPLICA_EVENT_COUNT)
        return RS_REPLICA_DEFECT;
    c = &cells[*s][event];
    if (c->move == RS_REPLICA_MOVES)
        *s = c->to;
    return c->move;
}
