#include "net/router/queue.h"

#include "core/base/error.h"
#include "tests/unit/check_main.h"

#include <stdio.h>
#include <string.h>

static struct rs_queue q;
static int64_t now;
static struct rs_waiter w[8];
static struct rs_slots a, b, far;

static void begin(int max_queued)
{
    rs_queue_init(&q, max_queued);
    now = 1000;
    a = b = far = (struct rs_slots){.limit = 1, .admitted = true};
    far.remote = true;
    for (size_t i = 0; i < RS_COUNT(w); i++)
        w[i] = (struct rs_waiter){.priority = RS_PRIORITY_DEFAULT};
}

/* Nobody has to go for it. */
static int put(struct rs_waiter *x)
{
    struct rs_waiter *displaced;
    int r = rs_queue_put(&q, x, now, &displaced);

    ck_assert_ptr_null(displaced);
    return r;
}

static void give_back(struct rs_waiter *x)
{
    rs_queue_return(&q, x, now);
}

/* The next pair must be these; NULL: none. */
static void expect(struct rs_waiter *want, struct rs_slots *where)
{
    struct rs_slots *s = NULL;
    struct rs_waiter *got = rs_queue_next(&q, now, &s);

    ck_assert_ptr_eq(got, want);
    if (want)
        ck_assert_ptr_eq(s, where);
}

START_TEST(first_come_first_served)
{
    begin(-1);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(put(&w[i]), 0);
    expect(NULL, NULL);
    rs_queue_add_slots(&q, &a);
    expect(&w[0], &a);
    expect(NULL, NULL);
    rs_queue_release(&q, &a, now);
    expect(&w[1], &a);
    ck_assert_uint_eq(q.queued, 1);
    rs_queue_remove(&q, &w[2]); /* it no longer wants to */
    rs_queue_release(&q, &a, now);
    expect(NULL, NULL);
    ck_assert_uint_eq(q.queued, 0);
}
END_TEST

START_TEST(fewest_in_flight_then_in_turn)
{
    begin(-1);
    a.limit = b.limit = 3;
    rs_queue_add_slots(&q, &a);
    rs_queue_add_slots(&q, &b);
    for (int i = 0; i < 8; i++)
        ck_assert_int_eq(put(&w[i]), 0);
    expect(&w[0], &b); /* the newer one was used longest ago: never */
    expect(&w[1], &a);
    expect(&w[2], &b);
    expect(&w[3], &a);
    rs_queue_release(&q, &a, now);
    rs_queue_release(&q, &a, now);
    expect(&w[4], &a);
    expect(&w[5], &a);
    expect(&w[6], &b);
    expect(&w[7], &a);
    ck_assert_uint_eq(a.in_flight, 3);
    ck_assert_uint_eq(b.in_flight, 3);
}
END_TEST

START_TEST(here_before_elsewhere)
{
    begin(-1);
    a.limit = 2;
    far.limit = 2;
    rs_queue_add_slots(&q, &a);
    rs_queue_add_slots(&q, &far);
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(put(&w[i]), 0);
    expect(&w[0], &a);
    expect(&w[1], &a);
    expect(&w[2], &far);
    expect(&w[3], &far);
}
END_TEST

START_TEST(who_must_stay_lets_others_go)
{
    begin(-1);
    rs_queue_add_slots(&q, &far);
    far.limit = 2;
    w[0].local_only = w[2].local_only = true;
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(put(&w[i]), 0);
    expect(&w[1], &far);
    rs_queue_add_slots(&q, &a);
    expect(&w[0], &a);
    a.limit = 2;
    expect(&w[2], &a); /* in their order again */
    expect(&w[3], &far);
}
END_TEST

START_TEST(only_admitted_and_not_blocked)
{
    begin(-1);
    a.admitted = false;
    b.blocked = true;
    rs_queue_add_slots(&q, &a);
    rs_queue_add_slots(&q, &b);
    ck_assert(rs_queue_open(&q));
    ck_assert_int_eq(put(&w[0]), 0);
    expect(NULL, NULL);
    b.admitted = false;
    ck_assert(!rs_queue_open(&q));
    a.admitted = true;
    expect(&w[0], &a);
    rs_queue_remove_slots(&q, &a);
    ck_assert(!rs_queue_open(&q));
}
END_TEST

static const struct {
    int max_queued;
    unsigned limit, fit; /* slots; how many of 8 are taken on */
} limits[] = {
    {-1, 0, 8}, {-1, 3, 8}, {0, 0, 0}, {0, 3, 3}, {2, 0, 2}, {2, 3, 5}, {2, 8, 8}, {20, 0, 8},
};

START_TEST(the_limit_is_exact)
{
    unsigned taken = 0;

    begin(limits[_i].max_queued);
    a.limit = limits[_i].limit;
    rs_queue_add_slots(&q, &a);
    for (int i = 0; i < 8; i++) {
        struct rs_slots *s;
        int r = put(&w[i]);

        ck_assert_int_eq(r, taken < limits[_i].fit ? 0 : RS_QUEUE_FULL);
        taken += r == 0;
        (void)rs_queue_next(&q, now, &s);
    }
    ck_assert_uint_eq(taken, limits[_i].fit);
}
END_TEST

START_TEST(what_comes_back_goes_first)
{
    struct rs_slots *s;

    begin(1);
    a.limit = 2;
    rs_queue_add_slots(&q, &a);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(put(&w[i]), 0);
        (void)rs_queue_next(&q, now, &s);
    }
    ck_assert_uint_eq(q.queued, 1);
    a.blocked = true;
    rs_queue_release(&q, &a, now);
    give_back(&w[1]); /* beyond the limit, which is for newcomers */
    rs_queue_release(&q, &a, now);
    give_back(&w[0]);
    ck_assert_uint_eq(q.queued, 3);
    ck_assert_int_eq(put(&w[3]), RS_QUEUE_FULL);
    ck_assert_ptr_eq(rs_queue_pop(&q), &w[0]);
    ck_assert_ptr_eq(rs_queue_pop(&q), &w[1]);
    ck_assert_ptr_eq(rs_queue_pop(&q), &w[2]);
    ck_assert_ptr_null(rs_queue_pop(&q));
}
END_TEST

/* --- models and sessions ----------------------------------------------------------------------- */

enum { M1 = 11, M2, M3 };

static void tells(struct rs_slots *s, const uint64_t *models, size_t n)
{
    rs_queue_models(&q, s, models, n);
}

static void begin_multiplexed(void)
{
    begin(-1);
    a.limit = b.limit = 2;
    rs_queue_add_slots(&q, &a);
    rs_queue_add_slots(&q, &b);
    tells(&a, (const uint64_t[]){M1, M3}, 2);
    tells(&b, (const uint64_t[]){M2}, 1);
}

static void put_for(unsigned i, uint64_t model, int64_t patient_until)
{
    w[i].wish.model = model;
    w[i].patient_until = patient_until;
    ck_assert_int_eq(put(&w[i]), 0);
}

START_TEST(who_has_the_model)
{
    begin_multiplexed();
    put_for(0, M1, 0);
    expect(&w[0], &a);
    put_for(1, M1, 0);
    expect(&w[1], &a); /* though b has fewer in flight */
    put_for(2, 99, 0);
    expect(&w[2], &b); /* nobody has it: where the fewest are */
    rs_queue_release(&q, &a, now);
    rs_queue_release(&q, &b, now);
    put_for(3, 99, 0);
    expect(&w[3], &b); /* it went there just before, so it will be there */
    tells(&b, NULL, 0);
    rs_queue_release(&q, &b, now);
    put_for(4, 99, 0);
    expect(&w[4], &b);
    put_for(5, 98, 0);
    expect(&w[5], &b); /* 1 against 2 models */
}
END_TEST

START_TEST(model_ids_mean_nothing_where_nobody_tells)
{
    begin(-1);
    rs_queue_add_slots(&q, &a);
    rs_queue_add_slots(&q, &b);
    put_for(0, M1, now + 1000);
    expect(&w[0], &b);
    put_for(1, M1, now + 1000);
    expect(&w[1], &a);
    ck_assert_uint_eq(a.models.n + b.models.n, 0);
}
END_TEST

START_TEST(patience_for_a_busy_one)
{
    begin_multiplexed();
    a.limit = 1;
    put_for(0, M1, now + 100);
    expect(&w[0], &a);
    put_for(1, M1, now + 100);
    put_for(2, M3, now + 200);
    put_for(3, M2, now + 100);
    expect(&w[3], &b); /* it goes before the others, whose replica is busy */
    expect(NULL, NULL);
    ck_assert_uint_eq(q.queued, 2);
    ck_assert_int_eq(rs_queue_deadline(&q, now), now + 100);
    rs_queue_release(&q, &a, now);
    expect(&w[1], &a); /* in their order */
    expect(NULL, NULL);
    ck_assert_int_eq(rs_queue_deadline(&q, now), now + 200);
    now += 200;
    expect(&w[2], &b); /* long enough */
    ck_assert_int_eq(rs_queue_deadline(&q, now), 0);
    ck_assert_uint_eq(q.queued, 0);
}
END_TEST

START_TEST(patience_ends_with_its_reason)
{
    begin_multiplexed();
    a.limit = 1;
    put_for(0, M1, now + 100);
    expect(&w[0], &a);
    put_for(1, M1, now + 100);
    expect(NULL, NULL);
    tells(&a, (const uint64_t[]){M3}, 1); /* it was evicted */
    expect(&w[1], &b);
    put_for(2, M1, now + 100);
    rs_queue_release(&q, &b, now);
    expect(&w[2], &b); /* b has it by now */
    put_for(3, M3, now + 100);
    b.in_flight = 0;
    expect(NULL, NULL);
    rs_queue_remove_slots(&q, &a);
    expect(&w[3], &b);
}
END_TEST

START_TEST(no_patience_beyond_the_limit)
{
    begin_multiplexed();
    q.max_queued = 1;
    a.limit = 1;
    put_for(0, M1, now + 100);
    expect(&w[0], &a);
    put_for(1, M1, now + 100);
    expect(NULL, NULL);
    put_for(2, M1, now + 100); /* the queue is full, but there is a slot */
    expect(&w[2], &b);
    ck_assert_uint_eq(q.queued, 1);
    w[3].wish.model = M1;
    b.limit = 1;
    ck_assert_int_eq(put(&w[3]), RS_QUEUE_FULL);
    ck_assert_ptr_eq(rs_queue_pop(&q), &w[1]);
}
END_TEST

START_TEST(a_session_stays_while_its_replica_is_there)
{
    enum { N = 5, SESSIONS = 1000 };
    static struct rs_slots s[N];
    static struct rs_slots *home[SESSIONS];
    unsigned count[N] = {0}, moved = 0;
    struct rs_slots *got;

    begin(-1);
    for (int i = 0; i < N; i++) {
        char name[16];

        s[i] = (struct rs_slots){.limit = 100, .admitted = true};
        snprintf(name, sizeof(name), "replica%d", i);
        s[i].key = rs_wish_hash(name, strlen(name));
        rs_queue_add_slots(&q, &s[i]);
    }
    for (int round = 0; round < 3; round++) {
        if (round == 2)
            rs_queue_remove_slots(&q, &s[0]);
        for (uint64_t i = 0; i < SESSIONS; i++) {
            w[0].wish.session = i + 1;
            ck_assert_int_eq(put(&w[0]), 0);
            ck_assert_ptr_eq(rs_queue_next(&q, now, &got), &w[0]);
            if (i % 2) /* some stay in flight: no matter */
                rs_queue_release(&q, got, now);
            else
                got->in_flight = 1;
            if (round == 0) {
                home[i] = got;
                count[got - s]++;
            }
            if (round == 1)
                ck_assert_ptr_eq(got, home[i]);
            if (round == 2 && home[i] != &s[0])
                ck_assert_ptr_eq(got, home[i]);
            moved += got != home[i];
        }
    }
    ck_assert_uint_eq(moved, count[0]); /* those of the one that went, and no others */
    for (int i = 0; i < N; i++)
        ck_assert_uint_gt(count[i], SESSIONS / N / 2);
    /* where its replica is busy it goes to another one at once */
    home[1]->limit = home[1]->in_flight = 1;
    w[0].wish.session = 2;
    ck_assert_int_eq(put(&w[0]), 0);
    ck_assert_ptr_eq(rs_queue_next(&q, now, &got), &w[0]);
    ck_assert_ptr_ne(got, home[1]);
}
END_TEST

/* --- against a plain model --------------------------------------------------------------------- */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { STEPS = 40000 };
#else
enum { STEPS = 200000 };
#endif
enum { WAITERS = 64, BACKENDS = 6 };

/* ck_assert tells Check where it is each time, which takes longer than all the rest. */
#define must(what)                                                                                 \
    do {                                                                                           \
        if (!(what))                                                                               \
            ck_abort_msg("%s", #what);                                                             \
    } while (0)

static uint64_t seed;

static unsigned random_below(unsigned n)
{
    seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (unsigned)(seed >> 33) % n;
}

static struct rs_waiter many[WAITERS];
static struct rs_slots *with[WAITERS]; /* where it is; NULL: waits or is idle */
static bool waits[WAITERS];
static struct rs_slots slots[BACKENDS];

static bool may_take(const struct rs_slots *s, const struct rs_waiter *x)
{
    return s->admitted && !s->blocked && s->in_flight < s->limit && !(s->remote && x->local_only);
}

static bool has_model(const struct rs_slots *s, const struct rs_waiter *x)
{
    return rs_models_have(&s->models, x->wish.model);
}

/* It may wait although there is a slot: some replica has its model. */
static bool may_wait(const struct rs_waiter *x)
{
    bool had = false, free_one = false;

    for (int j = 0; j < BACKENDS; j++) {
        had |= slots[j].admitted && !slots[j].blocked && slots[j].limit && has_model(&slots[j], x);
        free_one |= may_take(&slots[j], x) && has_model(&slots[j], x);
    }
    return x->wish.model && now < x->patient_until && had && !free_one;
}

/* After all pairs were taken: nobody waits beside a slot that suits him. */
static void check_nobody_waits_in_vain(void)
{
    unsigned queued = 0;

    for (int i = 0; i < WAITERS; i++) {
        queued += waits[i];
        for (int j = 0; waits[i] && j < BACKENDS; j++)
            must(!may_take(&slots[j], &many[i]) || may_wait(&many[i]));
    }
    ck_assert_uint_eq(q.queued, queued);
}

/* The one that was chosen is the oldest for which there was a slot, the slot the best for it. */
static void check_choice(const struct rs_waiter *x, const struct rs_slots *s, bool had_model)
{
    ck_assert_uint_le(s->in_flight, s->limit);
    ck_assert(s->admitted && !s->blocked && !(s->remote && x->local_only));
    for (int i = 0; i < WAITERS; i++) {
        for (int j = 0; waits[i] && j < BACKENDS; j++) {
            if (may_take(&slots[j], &many[i]) && !may_wait(&many[i]))
                must(many[i].seq > x->seq || slots[j].remote);
        }
    }
    for (int j = 0; j < BACKENDS; j++) {
        if (&slots[j] == s || !may_take(&slots[j], x))
            continue;
        ck_assert(!s->remote || slots[j].remote);
        if (s->remote != slots[j].remote)
            continue;
        if (x->wish.model)
            ck_assert(had_model || !has_model(&slots[j], x));
        else if (x->wish.session)
            ck_assert_uint_ge(rs_session_weight(x->wish.session, s->key),
                              rs_session_weight(x->wish.session, slots[j].key));
        else
            ck_assert_uint_ge(slots[j].in_flight, s->in_flight - 1);
    }
}

/* Before the pair is taken: afterwards the slot counts as one that has the model. */
static bool had[BACKENDS][4];

static void note_models(void)
{
    for (int j = 0; j < BACKENDS; j++) {
        for (uint64_t m = 0; m < 4; m++)
            had[j][m] = rs_models_have(&slots[j].models, m);
    }
}

static void step(void)
{
    unsigned i = random_below(WAITERS), j = random_below(BACKENDS);
    struct rs_slots *s;
    struct rs_waiter *x;
    uint64_t m;

    now += random_below(3);
    switch (random_below(9)) {
    case 0:
    case 1:
    case 2:
        if (waits[i])
            rs_queue_remove(&q, &many[i]);
        if (!waits[i] && !with[i]) {
            many[i].local_only = random_below(3) == 0;
            many[i].wish.model = random_below(4);
            many[i].wish.session = random_below(3);
            many[i].patient_until = now + 50;
            waits[i] = put(&many[i]) == 0;
            if (!waits[i])
                ck_assert_uint_ge(q.queued, (unsigned)q.max_queued);
        } else {
            waits[i] = false;
        }
        break;
    case 3:
    case 4:
        if (with[i])
            rs_queue_release(&q, with[i], now);
        with[i] = NULL;
        break;
    case 5:
        if (with[i]) {
            rs_queue_release(&q, with[i], now);
            give_back(&many[i]);
            waits[i] = true;
        }
        with[i] = NULL;
        break;
    case 6:
        slots[j].admitted = random_below(4) != 0;
        slots[j].blocked = random_below(4) == 0;
        break;
    case 7:
        m = random_below(4) + 1;
        if (j < 4) /* other nodes tell nothing */
            rs_queue_models(&q, &slots[j], &m, random_below(2));
        break;
    default:
        slots[j].limit = random_below(6);
        break;
    }
    note_models();
    while ((x = rs_queue_next(&q, now, &s))) {
        waits[x - many] = false;
        with[x - many] = s;
        check_choice(x, s, had[s - slots][x->wish.model]);
        note_models();
    }
    check_nobody_waits_in_vain();
}

START_TEST(keeps_its_rules)
{
    seed = (uint64_t)_i + 1;
    rs_queue_init(&q, 20);
    for (int j = 0; j < BACKENDS; j++) {
        slots[j] = (struct rs_slots){
            .limit = 3, .admitted = true, .remote = j >= 4, .key = (uint64_t)j + 1};
        rs_queue_add_slots(&q, &slots[j]);
    }
    for (int i = 0; i < STEPS / 20; i++)
        step();
}
END_TEST

RS_CHECK_MAIN("queue", tcase_add_test(tc, first_come_first_served);
              tcase_add_test(tc, fewest_in_flight_then_in_turn);
              tcase_add_test(tc, here_before_elsewhere);
              tcase_add_test(tc, who_must_stay_lets_others_go);
              tcase_add_test(tc, only_admitted_and_not_blocked);
              tcase_add_loop_test(tc, the_limit_is_exact, 0, RS_COUNT(limits));
              tcase_add_test(tc, what_comes_back_goes_first); tcase_add_test(tc, who_has_the_model);
              tcase_add_test(tc, model_ids_mean_nothing_where_nobody_tells);
              tcase_add_test(tc, patience_for_a_busy_one);
              tcase_add_test(tc, patience_ends_with_its_reason);
              tcase_add_test(tc, no_patience_beyond_the_limit);
              tcase_add_test(tc, a_session_stays_while_its_replica_is_there);
              tcase_add_loop_test(tc, keeps_its_rules, 0, 8);)
