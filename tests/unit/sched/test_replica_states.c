/* Every state of a replica x every event. */
#include "sched/replica-states.h"

#include "core/base/error.h"
#include "tests/unit/check_main.h"

#include <string.h>

/* P S R U D T X = PENDING STARTING RUNNING UPDATING DRAINING STOPPING STOPPED; "." it stays, "!" a
 * defect. One column per state, in that order. */
static const struct {
    enum rs_replica_event event;
    const char *after;
} lines[] = {
    /*                         PSRUDTX */
    {RS_REPLICA_ON_LAUNCHED, "S!!!!!!"}, {RS_REPLICA_ON_LOST, "XXXXXX."},
    {RS_REPLICA_ON_READY, ".R.R..."},    {RS_REPLICA_ON_FAILED, ".T.D..."},
    {RS_REPLICA_ON_TUNE, "..U...."},     {RS_REPLICA_ON_CUT, ".TTTT.."},
    {RS_REPLICA_ON_RETIRE, "XTDD..."},   {RS_REPLICA_ON_IDLE, "....T.."},
    {RS_REPLICA_ON_LATE, "!!!!T.!"},     {RS_REPLICA_ON_KILL, "XTTTT.."},
    {RS_REPLICA_ON_EXITED, "XXXXXX."},
};

START_TEST(every_cell)
{
    ck_assert_uint_eq(RS_COUNT(lines), RS_REPLICA_EVENT_COUNT);
    ck_assert_int_eq(lines[_i].event, _i);
    ck_assert_uint_eq(strlen(lines[_i].after), RS_REPLICA_STATE_COUNT);
    for (unsigned from = 0; from < RS_REPLICA_STATE_COUNT; from++) {
        enum rs_replica_state s = (enum rs_replica_state)from;
        enum rs_replica_move move = rs_replica_step(&s, lines[_i].event);
        char got = move == RS_REPLICA_DEFECT ? '!' : move == RS_REPLICA_STAYS ? '.' : "PSRUDTX"[s];

        ck_assert_msg(got == lines[_i].after[from], "%s in %s: %c, not %c",
                      rs_replica_event_name(lines[_i].event),
                      rs_replica_state_name((enum rs_replica_state)from), got,
                      lines[_i].after[from]);
        if (move != RS_REPLICA_MOVES)
            ck_assert_uint_eq(s, from);
    }
}
END_TEST

/* A replica never comes back: its state only rises, but for RUNNING and UPDATING among themselves. */
START_TEST(never_back)
{
    for (unsigned from = 0; from < RS_REPLICA_STATE_COUNT; from++) {
        enum rs_replica_state s = (enum rs_replica_state)from;

        if (rs_replica_step(&s, (enum rs_replica_event)_i) != RS_REPLICA_MOVES)
            continue;
        ck_assert(s > from || (from == RS_REPLICA_UPDATING && s == RS_REPLICA_RUNNING));
    }
}
END_TEST

START_TEST(strangers)
{
    enum rs_replica_state s = RS_REPLICA_RUNNING, none = (enum rs_replica_state)99;

    ck_assert_int_eq(rs_replica_step(&s, (enum rs_replica_event)99), RS_REPLICA_DEFECT);
    ck_assert_int_eq(rs_replica_step(&none, RS_REPLICA_ON_READY), RS_REPLICA_DEFECT);
    ck_assert_str_eq(rs_replica_event_name((enum rs_replica_event)99), "?");
    ck_assert_str_eq(rs_replica_event_text(RS_REPLICA_ON_EXITED), "its process ended");
}
END_TEST

RS_CHECK_MAIN("replica states", tcase_add_loop_test(tc, every_cell, 0, RS_COUNT(lines));
              tcase_add_loop_test(tc, never_back, 0, RS_REPLICA_EVENT_COUNT);
              tcase_add_test(tc, strangers);)
