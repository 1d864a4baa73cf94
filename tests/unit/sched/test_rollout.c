/* The rollout machine alone: tables, and random worlds in which what it says is done late, replicas die
 * and room comes and goes. */
#include "sched/rollout.h"
#include "tests/unit/check_main.h"

#include <stdio.h>
#include <string.h>

#define SECOND INT64_C(1000000000)

static struct rs_deployment_conf conf_of(int surge, double batch)
{
    return (struct rs_deployment_conf){.max_surge_percent = surge,
                                       .rolling_update_percentage = batch,
                                       .rollout = {.deadline = 600 * SECOND}};
}

/* --- numbers ------------------------------------------------------------------------------------- */

START_TEST(surge_and_batch)
{
    static const struct {
        int percent;
        double roll;
        unsigned wanted, unit, surge, batch;
    } cases[] = {
        {25, 0.2, 4, 1, 1, 1},  {25, 0.2, 1, 1, 1, 1},      {25, 0.2, 0, 1, 0, 1},
        {0, 0.2, 10, 1, 0, 2},  {1, 0.2, 10, 1, 1, 2},      {100, 1, 10, 1, 10, 10},
        {50, 0.5, 5, 1, 3, 2},  {25, 0.2, 8, 4, 4, 4},      {10, 0.3, 12, 4, 4, 4},
        {30, 0.7, 10, 1, 3, 7}, {29, 0.29, 100, 1, 29, 29}, {7, 0.07, 100, 1, 7, 7},
        {50, 0.5, 16, 4, 8, 8}, {20, 0.05, 20, 1, 4, 1},
    };

    for (size_t i = 0; i < RS_COUNT(cases); i++) {
        struct rs_deployment_conf c = conf_of(cases[i].percent, cases[i].roll);

        ck_assert_msg(rs_rollout_surge(&c, cases[i].wanted, cases[i].unit) == cases[i].surge,
                      "case %zu: surge", i);
        ck_assert_msg(rs_rollout_batch(&c, cases[i].wanted, cases[i].unit) == cases[i].batch,
                      "case %zu: batch", i);
    }
}
END_TEST

START_TEST(shares)
{
    static const struct {
        unsigned wanted, unit;
        double percent;
        bool surge;
        unsigned new_run, old_run;
    } cases[] = {
        {4, 1, 25, true, 1, 3},   {4, 1, 1, true, 1, 4},  {1, 1, 25, true, 1, 1},
        {1, 1, 25, false, 1, 0},  {4, 1, 50, true, 2, 2}, {10, 1, 33, true, 4, 7},
        {10, 1, 33, false, 4, 6}, {8, 4, 10, true, 4, 8}, {4, 1, 100, true, 4, 0},
        {100, 1, 7, true, 7, 93}, {0, 1, 50, true, 0, 0},
    };

    for (size_t i = 0; i < RS_COUNT(cases); i++) {
        unsigned n, o;

        rs_rollout_split(cases[i].wanted, cases[i].unit, cases[i].percent, cases[i].surge, &n, &o);
        ck_assert_msg(n == cases[i].new_run && o == cases[i].old_run, "case %zu: %u %u", i, n, o);
    }
}
END_TEST

START_TEST(names)
{
    for (int i = 0; i < RS_ROLLOUT_PHASE_COUNT; i++)
        ck_assert_int_eq(rs_rollout_phase_parse(rs_rollout_phase_name((enum rs_rollout_phase)i)),
                         i);
    for (int i = 0; i < RS_ROLLOUT_WHY_COUNT; i++)
        ck_assert_int_eq(rs_rollout_why_parse(rs_rollout_why_name((enum rs_rollout_why)i)), i);
    ck_assert_int_eq(rs_rollout_phase_parse("x"), -1);
    ck_assert_int_eq(rs_rollout_why_parse(NULL), -1);
}
END_TEST

/* --- a world that does at once what it is told --------------------------------------------------- */

struct world {
    struct rs_deployment_conf conf;
    struct rs_rollout r;
    struct rs_rollout_in in;
    int64_t now;
    unsigned room;            /* replicas that find a place; those on their way out take none */
    bool broken;              /* new replicas do not become ready */
    unsigned lowest, highest; /* of those up, of those live */
};

static void begin(struct world *w, unsigned wanted)
{
    w->now = SECOND;
    w->in = (struct rs_rollout_in){.wanted = wanted,
                                   .unit = w->in.unit ? w->in.unit : 1,
                                   .old_live = wanted,
                                   .old_up = wanted,
                                   .fresh = true,
                                   .feasible = true,
                                   .failure_limit = 3 * wanted,
                                   .death_limit = 3 * wanted,
                                   .canary_share = 100};
    w->lowest = wanted;
    w->highest = wanted;
    if (!w->room)
        w->room = 1000;
    rs_rollout_begin(&w->r, wanted, 0, wanted, w->now);
}

/* One round: what it says is done, what was started is up. True: something moved. */
static bool turn(struct world *w)
{
    struct rs_rollout_in *in = &w->in;
    struct rs_rollout_in before = *in;
    bool told = rs_rollout_step(&w->r, &w->conf, in, w->now);
    unsigned free;

    w->now += SECOND / 100;
    if (in->new_live > w->r.new_run)
        in->new_live = w->r.new_run;
    if (in->new_up > in->new_live)
        in->new_up = in->new_live;
    if (in->old_live > w->r.old_run)
        in->old_live = w->r.old_run;
    if (in->old_up > in->old_live)
        in->old_up = in->old_live;
    free = w->room > in->new_live + in->old_live ? w->room - in->new_live - in->old_live : 0;
    while (in->new_live < w->r.new_run && free > 0) {
        in->new_live++;
        free--;
    }
    while (in->old_live < w->r.old_run && free > 0) {
        in->old_live++;
        free--;
    }
    in->full = in->new_live < w->r.new_run;
    in->old_full = in->old_live < w->r.old_run;
    if (in->new_live + in->old_live > w->highest)
        w->highest = in->new_live + in->old_live;
    if (in->new_up + in->old_up < w->lowest)
        w->lowest = in->new_up + in->old_up;
    if (!w->broken)
        in->new_up = in->new_live;
    in->old_up = in->old_live;
    return told || memcmp(&before, in, sizeof(before)) != 0;
}

static void run(struct world *w)
{
    int i;

    for (i = 0; i < 1000 && turn(w); i++)
        ;
    ck_assert_int_lt(i, 1000); /* it comes to rest */
}

static const struct {
    const char *name;
    int surge;
    double batch;
    unsigned wanted, unit, room;
    enum rs_rollout_when_full when_full;
    enum rs_rollout_phase phase;
    enum rs_rollout_why why;
    unsigned lowest, highest;
} rolls[] = {
    {"surge of 1", 25, 0.2, 4, 1, 0, RS_FULL_STOP_FIRST, RS_ROLLOUT_DONE, RS_ROLLOUT_WHY_NONE, 4,
     5},
    {"one replica", 25, 0.2, 1, 1, 0, RS_FULL_STOP_FIRST, RS_ROLLOUT_DONE, RS_ROLLOUT_WHY_NONE, 1,
     2},
    {"all at once", 100, 0.2, 8, 1, 0, RS_FULL_WAIT, RS_ROLLOUT_DONE, RS_ROLLOUT_WHY_NONE, 8, 16},
    {"as Ray", 0, 0.2, 10, 1, 0, RS_FULL_WAIT, RS_ROLLOUT_DONE, RS_ROLLOUT_WHY_NONE, 8, 10},
    {"as Ray, one", 0, 0.2, 1, 1, 0, RS_FULL_WAIT, RS_ROLLOUT_DONE, RS_ROLLOUT_WHY_NONE, 0, 1},
    {"full: stop first", 25, 0.2, 4, 1, 4, RS_FULL_STOP_FIRST, RS_ROLLOUT_DONE, RS_ROLLOUT_WHY_NONE,
     3, 4},
    {"full: half at a time", 25, 0.5, 4, 1, 4, RS_FULL_STOP_FIRST, RS_ROLLOUT_DONE,
     RS_ROLLOUT_WHY_NONE, 2, 4},
    {"full: wait", 25, 0.2, 4, 1, 4, RS_FULL_WAIT, RS_ROLLOUT_SURGING, RS_ROLLOUT_WHY_NO_ROOM, 4,
     4},
    {"room for some", 100, 0.2, 4, 1, 6, RS_FULL_WAIT, RS_ROLLOUT_DONE, RS_ROLLOUT_WHY_NONE, 4, 6},
    {"gangs", 25, 0.2, 8, 4, 0, RS_FULL_STOP_FIRST, RS_ROLLOUT_DONE, RS_ROLLOUT_WHY_NONE, 8, 12},
    {"gangs as Ray", 0, 0.2, 8, 4, 0, RS_FULL_STOP_FIRST, RS_ROLLOUT_DONE, RS_ROLLOUT_WHY_NONE, 4,
     8},
};

START_TEST(roll)
{
    struct world w = {.conf = conf_of(rolls[_i].surge, rolls[_i].batch), .room = rolls[_i].room};

    w.conf.rollout.when_full = (int)rolls[_i].when_full;
    w.in.unit = rolls[_i].unit;
    begin(&w, rolls[_i].wanted);
    run(&w);
    ck_assert_msg(w.r.phase == rolls[_i].phase && w.r.why == rolls[_i].why, "%s: %s %s",
                  rolls[_i].name, rs_rollout_phase_name(w.r.phase), rs_rollout_why_name(w.r.why));
    ck_assert_msg(w.lowest == rolls[_i].lowest && w.highest == rolls[_i].highest, "%s: %u to %u",
                  rolls[_i].name, w.lowest, w.highest);
    if (w.r.phase == RS_ROLLOUT_DONE) {
        ck_assert_uint_eq(w.in.new_up, rolls[_i].wanted);
        ck_assert_uint_eq(w.in.old_live, 0);
    } else {
        ck_assert_uint_eq(w.in.old_up, rolls[_i].wanted);
    }
}
END_TEST

/* What cannot fit even without the old ones does not end them. */
START_TEST(never_fits)
{
    struct world w = {.conf = conf_of(25, 0.2), .room = 4};

    begin(&w, 4);
    w.in.feasible = false;
    run(&w);
    ck_assert_int_eq(w.r.why, RS_ROLLOUT_WHY_NO_ROOM);
    ck_assert_uint_eq(w.in.old_up, 4);
    ck_assert_uint_eq(w.lowest, 4);
}
END_TEST

/* --- stops --------------------------------------------------------------------------------------- */

START_TEST(failed_at_the_start)
{
    struct world w = {.conf = conf_of(25, 0.2), .broken = true};

    begin(&w, 4);
    run(&w);
    ck_assert_int_eq(w.r.phase, RS_ROLLOUT_SURGING);
    w.in.failures = 12;
    w.in.failed = true;
    run(&w);
    ck_assert_int_eq(w.r.phase, RS_ROLLOUT_STOPPED);
    ck_assert_int_eq(w.r.why, RS_ROLLOUT_WHY_START_FAILED);
    ck_assert_uint_eq(w.r.failures, 12);
    ck_assert_uint_eq(w.r.new_run, 0);
    ck_assert_uint_eq(w.r.old_run, 4);
    w.in.old_live = w.in.old_up = 3; /* one dies: it is asked for again */
    run(&w);
    ck_assert_uint_eq(w.in.old_up, 4);
    ck_assert_int_eq(rs_rollout_deadline(&w.r, &w.conf), INT64_MAX);
}
END_TEST

START_TEST(hangs)
{
    struct world w = {.conf = conf_of(25, 0.2), .broken = true};

    begin(&w, 4);
    run(&w);
    ck_assert_int_eq(rs_rollout_deadline(&w.r, &w.conf), w.r.progress_at + 600 * SECOND);
    w.now = w.r.progress_at + 600 * SECOND - 1;
    ck_assert(!rs_rollout_step(&w.r, &w.conf, &w.in, w.now));
    ck_assert(rs_rollout_step(&w.r, &w.conf, &w.in, w.now + 1));
    run(&w);
    ck_assert_int_eq(w.r.why, RS_ROLLOUT_WHY_NO_PROGRESS);
    ck_assert_int_eq(w.r.waited, 600 * SECOND);
    ck_assert_uint_eq(w.in.new_live, 0);
    ck_assert_uint_eq(w.in.old_up, 4);
}
END_TEST

/* In the middle: what is well stays, the old version has the rest. */
START_TEST(breaks_half_way)
{
    struct world w = {.conf = conf_of(25, 0.2)};

    begin(&w, 4);
    while (w.in.new_up < 2)
        turn(&w);
    w.broken = true;
    run(&w);
    w.in.failures += 12;
    run(&w);
    ck_assert_int_eq(w.r.phase, RS_ROLLOUT_STOPPED);
    ck_assert_uint_eq(w.in.new_live + w.in.old_live, 4);
    ck_assert_uint_ge(w.in.new_up, 2);
    w.in.new_live = w.in.new_up = w.in.new_up - 1; /* a new one dies: an old one takes its place */
    run(&w);
    ck_assert_uint_eq(w.in.new_up + w.in.old_up, 4);
}
END_TEST

START_TEST(dies_again_and_again)
{
    struct world w = {.conf = conf_of(25, 0.2)};

    begin(&w, 4);
    turn(&w);
    w.broken = true;
    for (int i = 0; i < 11; i++) {
        w.in.deaths++;
        w.in.new_up = 0;
        turn(&w);
        ck_assert_int_ne(w.r.phase, RS_ROLLOUT_STOPPED);
    }
    w.in.deaths++;
    w.in.new_up = 0;
    run(&w);
    ck_assert_int_eq(w.r.why, RS_ROLLOUT_WHY_DEATHS);
    ck_assert_uint_eq(w.in.old_up, 4);
}
END_TEST

/* A new version, and a resume, get it out of there. */
START_TEST(goes_on)
{
    struct world w = {.conf = conf_of(25, 0.2), .broken = true};

    begin(&w, 4);
    run(&w);
    w.in.failures = 12;
    run(&w);
    w.broken = false;
    ck_assert(rs_rollout_resume(&w.r, &w.in, w.now));
    run(&w);
    ck_assert_int_eq(w.r.phase, RS_ROLLOUT_DONE);
    ck_assert(!rs_rollout_resume(&w.r, &w.in, w.now));
    ck_assert(!rs_rollout_abort(&w.r, RS_ROLLOUT_WHY_ABORTED, w.now));
}
END_TEST

/* --- pauses -------------------------------------------------------------------------------------- */

static const struct {
    unsigned wanted, replicas;
    double percent, canary;
    enum rs_rollout_why why; /* NONE: it does not pause */
    unsigned new_up, old_up;
} halts[] = {
    {4, 0, 25, 100, RS_ROLLOUT_WHY_PAUSE_AFTER, 1, 3},
    {4, 0, 50, 100, RS_ROLLOUT_WHY_PAUSE_AFTER, 2, 2},
    {1, 0, 25, 100, RS_ROLLOUT_WHY_PAUSE_AFTER, 1, 1},
    {4, 3, 0, 100, RS_ROLLOUT_WHY_PAUSE_AFTER, 3, 1},
    {4, 4, 0, 100, RS_ROLLOUT_WHY_NONE, 4, 0},
    {4, 0, 100, 100, RS_ROLLOUT_WHY_NONE, 4, 0},
    {4, 0, 0, 1, RS_ROLLOUT_WHY_CANARY, 1, 4},
    {4, 0, 50, 1, RS_ROLLOUT_WHY_CANARY, 1, 4},
    {4, 0, 25, 50, RS_ROLLOUT_WHY_PAUSE_AFTER, 1, 3},
};

START_TEST(halt)
{
    struct world w = {.conf = conf_of(25, 0.2)};

    w.conf.rollout.pause_replicas = halts[_i].replicas;
    w.conf.rollout.pause_percent = halts[_i].percent;
    begin(&w, halts[_i].wanted);
    w.in.canary_share = halts[_i].canary;
    run(&w);
    ck_assert_int_eq(w.r.phase, halts[_i].why ? RS_ROLLOUT_PAUSED : RS_ROLLOUT_DONE);
    ck_assert_int_eq(w.r.why, halts[_i].why);
    ck_assert_uint_eq(w.in.new_up, halts[_i].new_up);
    ck_assert_uint_eq(w.in.old_up, halts[_i].old_up);
    ck_assert_uint_eq(w.lowest, halts[_i].wanted);
    w.now += 6000 * SECOND; /* nobody is in a hurry */
    run(&w);
    ck_assert_int_ne(w.r.phase, RS_ROLLOUT_STOPPED);
    if (halts[_i].why == RS_ROLLOUT_WHY_CANARY) {
        ck_assert(!rs_rollout_resume(&w.r, &w.in, w.now));
        w.in.canary_share = 100;
        w.conf.rollout.pause_percent = 0;
    } else if (halts[_i].why) {
        ck_assert(rs_rollout_resume(&w.r, &w.in, w.now));
        w.in.canary_share = 100;
    }
    run(&w);
    ck_assert_int_eq(w.r.phase, RS_ROLLOUT_DONE);
    ck_assert_uint_eq(w.in.new_up, halts[_i].wanted);
}
END_TEST

START_TEST(abort_at_the_pause)
{
    struct world w = {.conf = conf_of(25, 0.2)};

    w.conf.rollout.pause_percent = 75;
    begin(&w, 4);
    run(&w);
    ck_assert_uint_eq(w.in.new_up, 3);
    ck_assert(rs_rollout_abort(&w.r, RS_ROLLOUT_WHY_ABORTED, w.now));
    ck_assert(!rs_rollout_abort(&w.r, RS_ROLLOUT_WHY_ABORTED, w.now));
    run(&w);
    ck_assert_int_eq(w.r.phase, RS_ROLLOUT_STOPPED);
    ck_assert_uint_eq(w.in.new_live, 0);
    ck_assert_uint_eq(w.in.old_up, 4);
    ck_assert_uint_eq(w.lowest, 4);
    ck_assert_uint_eq(w.highest, 5);
}
END_TEST

/* The same where there is no room for more than are wanted. */
START_TEST(abort_where_it_is_full)
{
    struct world w = {.conf = conf_of(25, 0.2), .room = 4};

    w.conf.rollout.pause_percent = 50;
    begin(&w, 4);
    run(&w);
    ck_assert_int_eq(w.r.phase, RS_ROLLOUT_PAUSED);
    ck_assert(rs_rollout_abort(&w.r, RS_ROLLOUT_WHY_CANARY_FAILED, w.now));
    run(&w);
    ck_assert_uint_eq(w.in.new_live, 0);
    ck_assert_uint_eq(w.in.old_up, 4);
    ck_assert_uint_ge(w.lowest, 3);
}
END_TEST

START_TEST(ready_for_a_while)
{
    struct world w = {.conf = conf_of(25, 0.2)};

    w.conf.rollout.min_ready = 5 * SECOND;
    begin(&w, 4);
    while (turn(&w))
        ;
    ck_assert_uint_eq(w.in.new_up, 1);
    ck_assert_uint_eq(w.in.old_up, 4); /* not one goes before the new one has stood */
    ck_assert_int_eq(rs_rollout_deadline(&w.r, &w.conf), w.r.candidates_at + 5 * SECOND);
    w.in.new_up = 0; /* it dies: the time starts anew */
    rs_rollout_step(&w.r, &w.conf, &w.in, w.now);
    w.in.new_up = 1;
    w.now += 4 * SECOND;
    rs_rollout_step(&w.r, &w.conf, &w.in, w.now);
    w.now += 4 * SECOND;
    rs_rollout_step(&w.r, &w.conf, &w.in, w.now);
    ck_assert_uint_eq(w.r.ready, 0);
    w.now += SECOND;
    rs_rollout_step(&w.r, &w.conf, &w.in, w.now);
    ck_assert_uint_eq(w.r.ready, 1);
    ck_assert_uint_eq(w.r.old_run, 3);
}
END_TEST

/* The autoscaler wants another number in the middle. */
START_TEST(wanted_changes)
{
    struct world w = {.conf = conf_of(25, 0.2)};

    begin(&w, 4);
    while (w.in.new_up < 2)
        turn(&w);
    w.in.wanted = 8;
    run(&w);
    ck_assert_int_eq(w.r.phase, RS_ROLLOUT_DONE);
    ck_assert_uint_eq(w.in.new_up, 8);
    begin(&w, 8);
    w.in.new_live = w.in.new_up = 0;
    while (w.in.new_up < 3)
        turn(&w);
    w.in.wanted = 2;
    run(&w);
    ck_assert_int_eq(w.r.phase, RS_ROLLOUT_DONE);
    ck_assert_uint_eq(w.in.new_up, 2);
    begin(&w, 3);
    turn(&w);
    w.in.wanted = 0;
    run(&w);
    ck_assert_int_eq(w.r.phase, RS_ROLLOUT_DONE);
    ck_assert_uint_eq(w.in.new_live + w.in.old_live, 0);
}
END_TEST

START_TEST(nothing_to_replace)
{
    struct rs_deployment_conf c = conf_of(25, 0.2);
    struct rs_rollout r;
    struct rs_rollout_in in = {.wanted = 5, .unit = 1, .canary_share = 100};

    rs_rollout_begin(&r, 3, 0, 0, SECOND);
    ck_assert(!rs_rollout_active(&r));
    ck_assert(!rs_rollout_step(&r, &c, &in, SECOND));
    ck_assert_uint_eq(r.new_run, 5);
    ck_assert_uint_eq(r.old_run, 0);
    ck_assert_int_eq(rs_rollout_deadline(&r, &c), INT64_MAX);
}
END_TEST

/* A head that starts anew does not know all nodes yet. */
START_TEST(blind)
{
    struct world w = {.conf = conf_of(25, 0.2)};

    begin(&w, 4);
    while (w.in.new_up < 2)
        turn(&w);
    struct rs_rollout before = w.r;

    w.in.blind = true;
    w.in.new_live = w.in.new_up = w.in.old_live = w.in.old_up = 0;
    rs_rollout_step(&w.r, &w.conf, &w.in, w.now);
    ck_assert_uint_eq(w.r.old_run, before.old_run);
    ck_assert_uint_eq(w.r.new_run, before.new_run);
}
END_TEST

/* A node hung up: nothing goes because what it ran is not seen, nobody is judged by it, and it does not
 * last. */
START_TEST(away)
{
    struct world w = {.conf = conf_of(25, 0.2)};

    w.conf.rollout.deadline = 30 * SECOND;
    begin(&w, 4);
    while (w.in.new_up < 2)
        turn(&w);
    if (_i == 1)
        ck_assert(rs_rollout_abort(&w.r, RS_ROLLOUT_WHY_ABORTED, w.now));
    if (_i == 2)
        w.in.deaths = w.in.death_limit;
    rs_rollout_step(&w.r, &w.conf, &w.in, w.now);
    struct rs_rollout before = w.r;
    struct rs_rollout_in all = w.in;

    ck_assert_int_eq(w.r.phase == RS_ROLLOUT_STOPPED, _i > 0);
    w.in.away = true;
    w.in.new_live = w.in.new_up = w.in.old_live = w.in.old_up = 0;
    w.in.deaths = w.in.failures = 0;
    w.now += 100 * SECOND;
    rs_rollout_step(&w.r, &w.conf, &w.in, w.now);
    ck_assert_uint_ge(w.r.old_run, before.old_run);
    ck_assert_uint_ge(w.r.new_run, before.new_run);
    ck_assert_int_eq(w.r.phase == RS_ROLLOUT_STOPPED, _i > 0);
    ck_assert_int_gt(rs_rollout_deadline(&w.r, &w.conf), w.now);
    if (_i == 0) { /* it does not come back: the old ones that are not there are not waited for */
        w.in.away = false;
        rs_rollout_step(&w.r, &w.conf, &w.in, w.now);
        ck_assert_uint_eq(w.r.old_run, 0);
        return;
    }
    w.in = all; /* it is back, and nothing was lost */
    w.in.away = false;
    rs_rollout_step(&w.r, &w.conf, &w.in, w.now);
    ck_assert_uint_ge(w.r.old_run + w.r.new_run, 4);
}
END_TEST

/* --- random worlds ------------------------------------------------------------------------------- */

enum { MAX = 40 };
enum life { NONE, STARTING, UP, LEAVING };

/* Where what is told arrives late, and what is seen is old. */
struct chaos {
    struct rs_deployment_conf conf;
    struct rs_rollout r;
    uint64_t random;
    int64_t now;
    enum life news[MAX], olds[MAX];
    unsigned wanted, room, unit;
    uint64_t said, done, seen; /* answers, numbered */
    unsigned told_new, told_old;
    struct rs_rollout_in view;
    bool broken, deaths;
    unsigned failures;
    bool starved; /* there was no room at some time */
};

static unsigned draw(struct chaos *x, unsigned n)
{
    x->random = x->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)(x->random >> 33) % n;
}

static unsigned count(const enum life *of, enum life from, enum life to)
{
    unsigned n = 0;

    for (int i = 0; i < MAX; i++)
        n += of[i] >= from && of[i] <= to;
    return n;
}

static unsigned taken(const struct chaos *x)
{
    return count(x->news, STARTING, LEAVING) + count(x->olds, STARTING, LEAVING);
}

/* The node: its numbers are kept up, with what there is of room. */
static void keep_up(struct chaos *x, enum life *of, unsigned run)
{
    for (int up = STARTING; up <= UP; up++)
        for (int i = 0; i < MAX && count(of, STARTING, UP) > run; i++)
            if (of[i] == (enum life)up)
                of[i] = up == UP ? LEAVING : NONE;
    for (int i = 0; i < MAX && count(of, STARTING, UP) < run && taken(x) < x->room; i++)
        if (of[i] == NONE)
            of[i] = STARTING;
}

static void look_at(struct chaos *x)
{
    struct rs_rollout_in *v = &x->view;

    v->wanted = x->wanted;
    v->unit = 1;
    v->new_live = count(x->news, STARTING, UP);
    v->new_up = count(x->news, UP, UP);
    v->old_live = count(x->olds, STARTING, UP);
    v->old_up = count(x->olds, UP, UP);
    v->leaving = count(x->news, LEAVING, LEAVING) + count(x->olds, LEAVING, LEAVING);
    v->failures = x->failures;
    v->failure_limit = v->death_limit = 3 * x->wanted;
    v->feasible = true;
    v->canary_share = 100;
    x->seen = x->done;
}

static void decide(struct chaos *x)
{
    unsigned before_new = x->r.new_run, before_old = x->r.old_run;

    for (int i = 0; i < 3; i++) {
        x->view.fresh = x->seen == x->said;
        x->view.full = x->r.new_run + x->r.old_run > x->room;
        x->view.old_full = x->view.full;
        x->starved |= x->view.full;
        rs_rollout_step(&x->r, &x->conf, &x->view, x->now);
        x->view.fresh = x->view.fresh && before_new == x->r.new_run && before_old == x->r.old_run;
    }
    if (before_new != x->r.new_run || before_old != x->r.old_run)
        x->said++;
}

static void happen(struct chaos *x)
{
    enum life *of = draw(x, 2) ? x->news : x->olds;
    unsigned i = draw(x, MAX);

    x->now += SECOND / 10;
    switch (draw(x, 8)) {
    case 0: /* what was told arrives */
    case 1:
        x->told_new = x->r.new_run;
        x->told_old = x->r.old_run;
        x->done = x->said;
        break;
    case 2: /* what there is is seen */
    case 3:
        look_at(x);
        break;
    case 4:
    case 5: /* a start comes to its end */
        if (of[i] == STARTING && !(x->broken && of == x->news))
            of[i] = UP;
        else if (of[i] == STARTING) {
            of[i] = NONE;
            x->failures++;
        }
        break;
    case 6:
        if (of[i] == LEAVING)
            of[i] = NONE;
        break;
    default:
        if (x->deaths && draw(x, 8) == 0 && of[i] == UP)
            of[i] = NONE;
        break;
    }
    keep_up(x, x->olds, x->told_old);
    keep_up(x, x->news, x->told_new);
    decide(x);
}

static void chaos_init(struct chaos *x, int seed)
{
    *x = (struct chaos){.random = (uint64_t)seed * 7919 + 1, .now = SECOND};
    x->wanted = 1 + draw(x, 12);
    x->conf = conf_of((int)(draw(x, 3) ? 1 + draw(x, 100) : 0), (1 + draw(x, 100)) / 100.0);
    x->conf.rollout.deadline = -1;
    x->room = draw(x, 2) ? MAX : x->wanted + draw(x, 2);
    x->broken = draw(x, 4) == 0;
    x->deaths = draw(x, 3) == 0;
    for (unsigned i = 0; i < x->wanted; i++)
        x->olds[i] = UP;
    x->told_old = x->wanted;
    rs_rollout_begin(&x->r, x->wanted, 0, x->wanted, x->now);
    look_at(x);
}

static void check(const struct chaos *x)
{
    unsigned live = count(x->news, STARTING, UP) + count(x->olds, STARTING, UP);
    unsigned up = count(x->news, UP, UP) + count(x->olds, UP, UP);
    unsigned surge = rs_rollout_surge(&x->conf, x->wanted, 1);
    unsigned batch = surge == 0 || x->starved ? rs_rollout_batch(&x->conf, x->wanted, 1) : 0;

    ck_assert_msg(live <= x->wanted + surge, "%u live, %u wanted, surge %u", live, x->wanted,
                  surge);
    if (!x->deaths)
        ck_assert_msg(up + batch >= x->wanted, "%u up, %u wanted, batch %u", up, x->wanted, batch);
}

START_TEST(random_world)
{
    struct chaos x;
    int i;

    chaos_init(&x, _i);
    for (i = 0; i < 100000 && x.r.phase != RS_ROLLOUT_DONE && x.r.phase != RS_ROLLOUT_STOPPED;
         i++) {
        happen(&x);
        check(&x);
    }
    ck_assert_msg(x.r.phase == (x.broken ? RS_ROLLOUT_STOPPED : RS_ROLLOUT_DONE), "%s, %s",
                  rs_rollout_phase_name(x.r.phase), rs_rollout_why_name(x.r.why));
    /* Whatever it came to: when nothing happens any more, as many as are wanted run. */
    x.deaths = false;
    for (i = 0; i < 4000; i++)
        happen(&x);
    ck_assert_uint_eq(count(x.news, UP, UP) + count(x.olds, UP, UP), x.wanted);
    ck_assert_uint_eq(count(x.news, STARTING, UP) + count(x.olds, STARTING, UP), x.wanted);
    if (x.broken)
        ck_assert_uint_eq(count(x.olds, UP, UP), x.wanted);
}
END_TEST

/* Called off at any time, and taken up again. */
START_TEST(random_orders)
{
    struct chaos x;

    chaos_init(&x, _i);
    x.broken = x.deaths = false;
    for (int i = 0; i < 2000; i++) {
        happen(&x);
        check(&x);
        if (draw(&x, 200) == 0)
            rs_rollout_abort(&x.r, RS_ROLLOUT_WHY_ABORTED, x.now);
        if (draw(&x, 300) == 0)
            rs_rollout_resume(&x.r, &x.view, x.now);
    }
    rs_rollout_abort(&x.r, RS_ROLLOUT_WHY_ABORTED, x.now);
    for (int i = 0; i < 4000; i++) {
        happen(&x);
        check(&x);
    }
    ck_assert_uint_eq(count(x.r.phase == RS_ROLLOUT_DONE ? x.news : x.olds, UP, UP), x.wanted);
    ck_assert_uint_eq(count(x.news, STARTING, UP) + count(x.olds, STARTING, UP), x.wanted);
}
END_TEST

RS_CHECK_MAIN("rollout", tcase_add_test(tc, surge_and_batch); tcase_add_test(tc, shares);
              tcase_add_test(tc, names); tcase_add_loop_test(tc, roll, 0, RS_COUNT(rolls));
              tcase_add_test(tc, never_fits); tcase_add_test(tc, failed_at_the_start);
              tcase_add_test(tc, hangs); tcase_add_test(tc, breaks_half_way);
              tcase_add_test(tc, dies_again_and_again); tcase_add_test(tc, goes_on);
              tcase_add_loop_test(tc, halt, 0, RS_COUNT(halts));
              tcase_add_test(tc, abort_at_the_pause); tcase_add_test(tc, abort_where_it_is_full);
              tcase_add_test(tc, ready_for_a_while); tcase_add_test(tc, wanted_changes);
              tcase_add_test(tc, nothing_to_replace); tcase_add_test(tc, blind);
              tcase_add_loop_test(tc, away, 0, 3); tcase_add_loop_test(tc, random_world, 0, 150);
              tcase_add_loop_test(tc, random_orders, 0, 60);)
