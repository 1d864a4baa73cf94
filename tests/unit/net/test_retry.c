/* Which requests run once more when their replica dies: by table, and with random events. */
#include "net/router/retry.h"

#include "core/base/clock.h"
#include "core/base/error.h"

#include "tests/unit/check_main.h"

/* --- by table ---------------------------------------------------------------------------------- */

static const struct {
    bool safe, answered, started, whole;
    uint8_t again;
    bool broke; /* nothing is left in the budget */
    enum rs_retry_verdict want;
} cases[] = {
    /* not started: always, whatever it is and however poor the deployment */
    {.whole = true, .want = RS_RETRY_RETURN},
    {.safe = true, .whole = true, .want = RS_RETRY_RETURN},
    {.whole = true, .broke = true, .want = RS_RETRY_RETURN},
    {.whole = true, .again = RS_RETRY_RUNS - 1, .want = RS_RETRY_RETURN},
    {.want = RS_RETRY_CUT},
    /* started */
    {.safe = true, .started = true, .whole = true, .want = RS_RETRY_AGAIN},
    {.started = true, .whole = true, .want = RS_RETRY_UNSAFE},
    {.started = true, .want = RS_RETRY_UNSAFE},
    {.safe = true, .started = true, .want = RS_RETRY_CUT},
    {.safe = true, .answered = true, .started = true, .whole = true, .want = RS_RETRY_ANSWERED},
    {.answered = true, .started = true, .whole = true, .want = RS_RETRY_ANSWERED},
    {.safe = true,
     .started = true,
     .whole = true,
     .again = RS_RETRY_RUNS - 2,
     .want = RS_RETRY_AGAIN},
    {.safe = true,
     .started = true,
     .whole = true,
     .again = RS_RETRY_RUNS - 1,
     .want = RS_RETRY_OFTEN},
    {.safe = true, .started = true, .whole = true, .broke = true, .want = RS_RETRY_BUDGET},
};

START_TEST(decides)
{
    struct rs_retry r = {cases[_i].safe, cases[_i].answered, cases[_i].again};
    struct rs_retry_budget b;
    struct rs_retry spender = {.safe = true};
    enum rs_retry_verdict got;
    uint64_t left;

    rs_retry_budget_init(&b, 0, RS_RETRY_PERCENT);
    for (int i = 0; cases[_i].broke && i < RS_RETRY_FLOOR; i++) {
        spender.again = 0;
        ck_assert_int_eq(rs_retry_decide(&spender, &b, true, true, RS_SEC), RS_RETRY_AGAIN);
    }
    left = rs_retry_budget_left(&b, RS_SEC);
    got = rs_retry_decide(&r, &b, cases[_i].started, cases[_i].whole, RS_SEC);
    ck_assert_str_eq(rs_retry_name(got), rs_retry_name(cases[_i].want));
    ck_assert_uint_eq(rs_retry_budget_left(&b, RS_SEC), left - (got == RS_RETRY_AGAIN));
    ck_assert_uint_eq(r.again, cases[_i].again + (got == RS_RETRY_AGAIN));
    ck_assert_int_eq(rs_retry_why(got) == NULL, got <= RS_RETRY_AGAIN); /* a failure says why */
}
END_TEST

START_TEST(earns_with_traffic_and_forgets)
{
    struct rs_retry_budget b;
    int64_t now = 1000 * RS_SEC;

    rs_retry_budget_init(&b, 3, 20);
    ck_assert_uint_eq(rs_retry_budget_left(&b, now), RS_RETRY_FLOOR);
    rs_retry_budget_floor(&b, 100); /* a replica that takes so many may die with all of them */
    ck_assert_uint_eq(rs_retry_budget_left(&b, now), 100);
    rs_retry_budget_floor(&b, 0);
    for (int i = 0; i < 500; i++)
        rs_retry_earn(&b, now);
    ck_assert_uint_eq(rs_retry_budget_left(&b, now), RS_RETRY_FLOOR + 100);
    for (int i = 0; i < 50; i++)
        ck_assert_int_eq(rs_retry_decide(&(struct rs_retry){.safe = true}, &b, true, true, now),
                         RS_RETRY_AGAIN);
    ck_assert_uint_eq(rs_retry_budget_left(&b, now), RS_RETRY_FLOOR + 50);
    ck_assert_uint_eq(rs_retry_budget_left(&b, now + (RS_RETRY_WINDOW - 1) * RS_SEC),
                      RS_RETRY_FLOOR + 50);
    /* what was earned and what was spent is forgotten together */
    ck_assert_uint_eq(rs_retry_budget_left(&b, now + RS_RETRY_WINDOW * RS_SEC), RS_RETRY_FLOOR);
    ck_assert_uint_eq(rs_retry_budget_left(&b, now + 1000 * RS_SEC), RS_RETRY_FLOOR);
}
END_TEST

static const unsigned floors[][2] = {{1, 5}, {5, 25}, {19, 95}, {20, 100}, {99, 100}, {500, 500}};

START_TEST(floor_of_a_replica)
{
    ck_assert_uint_eq(rs_retry_floor(floors[_i][0]), floors[_i][1]);
}
END_TEST

/* --- with random events ------------------------------------------------------------------------ */

/* A deployment in miniature: requests come, wait, are sent, started, begin their answers and end them;
 * replicas die with what they have. After each event the rules must hold. */
enum { REQUESTS = 256, EVENTS = 200000 };

enum stage { FREE, WAITING, SENT, STARTED, ANSWERING };

struct request {
    struct rs_retry retry;
    enum stage stage;
    bool whole;
    unsigned runs, ends, replica;
};

struct model {
    struct rs_retry_budget budget;
    struct request requests[REQUESTS];
    uint64_t seed, came, ended, again;
    int64_t now;
    /* the budget counted in the open, per second */
    uint32_t asked[64], spent[64];
};

static unsigned dice(struct model *m, unsigned sides)
{
    m->seed = m->seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)(m->seed >> 33) % sides;
}

static void came(struct model *m, struct request *r)
{
    ck_assert_int_eq(r->stage, FREE);
    *r = (struct request){
        .retry.safe = dice(m, 2), .stage = WAITING, .whole = dice(m, 8) != 0, .replica = 0};
    rs_retry_earn(&m->budget, m->now);
    m->came++;
}

static void ended(struct model *m, struct request *r)
{
    ck_assert_uint_eq(++r->ends, 1); /* exactly once */
    r->stage = FREE;
    m->ended++;
}

static void died(struct model *m, struct request *r)
{
    struct rs_retry before = r->retry;
    uint64_t left = rs_retry_budget_left(&m->budget, m->now);
    bool started = r->stage >= STARTED;
    enum rs_retry_verdict v = rs_retry_decide(&r->retry, &m->budget, started, r->whole, m->now);

    if (v == RS_RETRY_RETURN) {
        ck_assert(!started && r->whole);
        r->stage = WAITING;
    } else if (v == RS_RETRY_AGAIN) {
        ck_assert(before.safe && r->stage == STARTED && r->whole && left > 0);
        ck_assert_uint_eq(rs_retry_budget_left(&m->budget, m->now), left - 1);
        ck_assert_uint_lt(r->runs, RS_RETRY_RUNS);
        m->again++;
        r->stage = WAITING;
    } else {
        ck_assert(started || !r->whole); /* what was not started and is whole is never lost */
        ended(m, r);
    }
}

static void step(struct model *m, struct request *r)
{
    switch (r->stage) {
    case FREE:
        came(m, r);
        break;
    case WAITING:
        r->stage = SENT;
        r->replica = dice(m, 8);
        break;
    case SENT:
        r->stage = STARTED;
        r->runs++;
        break;
    case STARTED:
        r->stage = ANSWERING;
        r->retry.answered = true;
        break;
    default:
        ended(m, r);
        break;
    }
}

/* Never more in any window than the floor and its share of what came in that window. */
static void check_budget(struct model *m, int64_t began, uint64_t asked_before,
                         uint64_t again_before)
{
    size_t second = (size_t)((m->now - began) / RS_SEC);

    ck_assert_uint_lt(second, RS_COUNT(m->asked));
    m->asked[second] += (uint32_t)(m->came - asked_before);
    m->spent[second] += (uint32_t)(m->again - again_before);
    if (m->again != again_before) {
        size_t first = second + 1 < RS_RETRY_WINDOW ? 0 : second + 1 - RS_RETRY_WINDOW;
        uint64_t asked = 0, spent = 0;

        for (size_t i = first; i <= second; i++) {
            asked += m->asked[i];
            spent += m->spent[i];
        }
        ck_assert_uint_le(spent, m->budget.floor + asked * m->budget.percent / 100);
    }
}

START_TEST(keeps_its_rules)
{
    static struct model m;
    const int64_t began = 7 * RS_SEC;

    m = (struct model){.seed = (uint64_t)_i + 1, .now = began};
    rs_retry_budget_init(&m.budget, 0, RS_RETRY_PERCENT);
    for (int i = 0; i < EVENTS; i++) {
        uint64_t asked = m.came, again = m.again;

        m.now += dice(&m, 2 * 60 * 1000000 / (EVENTS / 1000)); /* a minute, on average */
        if (m.now - began >= 63 * RS_SEC)
            break;
        if (dice(&m, 40) == 0) { /* a replica dies with all that it has */
            unsigned victim = dice(&m, 8);

            for (size_t j = 0; j < REQUESTS; j++)
                if (m.requests[j].stage >= SENT && m.requests[j].replica == victim)
                    died(&m, &m.requests[j]);
        } else {
            step(&m, &m.requests[dice(&m, REQUESTS)]);
        }
        check_budget(&m, began, asked, again);
    }
    ck_assert_uint_gt(m.again, 100);
    for (size_t j = 0; j < REQUESTS; j++) /* and each one that is left ends, too */
        while (m.requests[j].stage != FREE)
            step(&m, &m.requests[j]);
    ck_assert_uint_eq(m.came, m.ended);
}
END_TEST

/* One request that kills whoever takes it. */
START_TEST(poison_ends)
{
    struct rs_retry_budget b;
    struct rs_retry r = {.safe = true};
    unsigned runs = 1;

    rs_retry_budget_init(&b, 1000, RS_RETRY_PERCENT);
    while (rs_retry_decide(&r, &b, true, true, RS_SEC) == RS_RETRY_AGAIN)
        runs++;
    ck_assert_uint_eq(runs, RS_RETRY_RUNS);
    ck_assert_uint_gt(rs_retry_budget_left(&b, RS_SEC), 900);
}
END_TEST

RS_CHECK_MAIN("retry", tcase_add_loop_test(tc, decides, 0, RS_COUNT(cases));
              tcase_add_loop_test(tc, floor_of_a_replica, 0, RS_COUNT(floors));
              tcase_add_test(tc, earns_with_traffic_and_forgets);
              tcase_add_loop_test(tc, keeps_its_rules, 0, 8); tcase_add_test(tc, poison_ends);)
