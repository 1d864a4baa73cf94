/* Requests of a deployment with a router of its own: what is asked, who gets them, what happens when no
 * answer comes. Backends and origins are pretended; only the wait for an answer takes real time. */
#include "net/router/choose.h"

#include "core/base/alloc.h"
#include "core/base/json.h"
#include "net/router/pool-internal.h"
#include "tests/unit/check_main.h"

#include <string.h>

enum { REPLICAS = 3, REQUESTS = 8 };

static struct rs_loop *loop;
static struct rs_metrics *metrics;
static struct rs_router_metrics families;
static struct rs_figures pool_figures, figures[REPLICAS];
static struct rs_pool *pool;
static struct rs_backend backends[REPLICAS];
static struct rs_request requests[REQUESTS];
static struct rs_request *sent[64]; /* to backends, in order */
static const struct rs_backend *sent_to[64];
static size_t n_sent, n_cancelled, n_failed;
static json_t *questions[64];
static uint64_t ids[64];
static size_t n_questions;

/* --- pretended --- */

static void op_send(struct rs_backend *b, struct rs_request *r)
{
    sent_to[n_sent] = b;
    sent[n_sent++] = r;
}

static void op_cancel(struct rs_backend *b, struct rs_request *r)
{
    n_cancelled++;
}

static const struct rs_backend_ops backend_ops = {.send = op_send, .cancel = op_cancel};

static void on_answer(struct rs_request *r, const struct rs_answer *a, struct rs_chunk *body,
                      bool end)
{
}

static void on_fail(struct rs_request *r, const struct rs_failure *f)
{
    n_failed++;
}

static const struct rs_reply_ops reply_ops = {.answer = on_answer, .fail = on_fail};

static void on_backend(struct rs_backend *b, void *arg)
{
}

static void on_gone(struct rs_backend *b, const char *why, void *arg)
{
}

static void on_choose(struct rs_pool *p, uint64_t id, json_t *question, void *arg)
{
    ids[n_questions] = id;
    questions[n_questions++] = question;
}

static void on_buried(struct rs_backend *b, void *arg)
{
}

static const struct rs_pool_ops pool_ops = {
    .on_idle = on_backend, .on_gone = on_gone, .on_buried = on_buried, .on_choose = on_choose};

/* --- the world --- */

static void router(bool there)
{
    rs_auto(rs_json_decrefp) json_t *conf = json_object();

    rs_pool_router(pool, there ? conf : NULL);
}

static void setup(void)
{
    static const char *const names[REPLICAS] = {"r0", "r1", "r2"};

    n_sent = n_cancelled = n_failed = n_questions = 0;
    memset(figures, 0, sizeof(figures));
    memset(&pool_figures, 0, sizeof(pool_figures));
    ck_assert_int_eq(rs_loop_new(&loop, NULL), 0);
    metrics = rs_metrics_new();
    rs_router_metrics_init(&families, metrics);
    pool = rs_pool_new(loop, &families, "app", "D", &pool_figures, &pool_ops, NULL);
    router(true);
    rs_pool_configure(pool, 1, &(struct rs_queue_conf){.max_queued = -1}, false);
    for (int i = 0; i < REPLICAS; i++) {
        backends[i] = (struct rs_backend){
            .ops = &backend_ops, .replica_id = rs_strdup(names[i]), .figures = &figures[i]};
        rs_pool_add(pool, &backends[i], 0);
    }
}

static void admit_all(void)
{
    for (int i = 0; i < REPLICAS; i++)
        rs_pool_admit(pool, &backends[i], true);
}

static struct rs_request *submit_with(size_t i, uint8_t priority, int64_t deadline)
{
    struct rs_request *r = &requests[i];

    rs_request_reset(r, &reply_ops);
    r->priority = priority;
    r->deadline = deadline;
    rs_field_put(&r->meta, RS_TAG_REQUEST_ID, "q", 1);
    rs_field_put(&r->meta, RS_TAG_SESSION_ID, "s1", 2);
    r->kind = RS_REQUEST_CALL;
    r->body_end = true;
    rs_pool_submit(pool, r);
    return r;
}

static struct rs_request *submit(size_t i)
{
    return submit_with(i, RS_PRIORITY_DEFAULT, 0);
}

static void answer(uint64_t id, const char *text)
{
    rs_auto(rs_json_decrefp) json_t *j = text ? json_loads(text, 0, NULL) : NULL;

    ck_assert(!text || j);
    rs_chooser_answer(pool->chooser, id, j);
}

static void finish(struct rs_request *r)
{
    struct rs_chunk body = RS_CHUNK_NONE;

    rs_request_answer(r, &(struct rs_answer){.status = 0}, &body, true);
}

static uint64_t fallbacks(void)
{
    return atomic_load(&pool_figures.fallbacks);
}

static void teardown(void)
{
    for (size_t i = 0; i < REQUESTS; i++)
        if (requests[i].pool)
            rs_request_cancel(&requests[i]);
    for (int i = 0; i < REPLICAS; i++) {
        rs_pool_remove(pool, &backends[i], NULL);
        free(backends[i].replica_id);
    }
    for (size_t i = 0; i < REQUESTS; i++)
        rs_request_fini(&requests[i]);
    for (size_t i = 0; i < n_questions; i++)
        json_decref(questions[i]);
    rs_pool_free(pool);
    rs_metrics_free(metrics);
    rs_loop_free(loop);
    memset(requests, 0, sizeof(requests));
}

/* --- tests --- */

static const char *ask_text(size_t i, const char *key)
{
    return rs_json_str(json_object_get(questions[i], "request"), key, "");
}

START_TEST(asked_and_given)
{
    admit_all();
    submit(0);
    ck_assert_uint_eq(n_sent, 0);
    ck_assert_uint_eq(n_questions, 1);
    ck_assert_uint_eq(json_array_size(json_object_get(questions[0], "replicas")), 3);
    ck_assert_str_eq(ask_text(0, "request_id"), "q");
    ck_assert_str_eq(ask_text(0, "session_id"), "s1");
    ck_assert_str_eq(ask_text(0, "call_method"), "__call__");
    ck_assert_uint_eq(pool->queue.queued, 1);
    answer(ids[0], "{\"groups\": [[\"r2\"], [\"r0\", \"r1\"]]}");
    ck_assert_uint_eq(n_sent, 1);
    ck_assert_ptr_eq(sent_to[0], &backends[2]);
    ck_assert_uint_eq(pool->queue.queued, 0);
    ck_assert_uint_eq(fallbacks(), 0);
    finish(&requests[0]);
    ck_assert_uint_eq(n_questions, 1); /* it does not want to be told */
}
END_TEST

static const struct {
    const char *groups;
    int to; /* -1: waits */
    bool fallback;
} answers[] = {
    {"{\"groups\": [[\"r1\", \"r2\"], [\"r0\"]]}", 1, false}, /* r2 is busy */
    {"{\"groups\": [[\"r2\"], [\"r0\"]]}", 0, false},
    {"{\"groups\": [[\"r2\"]]}", -1, false},
    {"{\"groups\": []}", -1, false},
    {"{\"groups\": [[]]}", -1, false},
    {"{\"groups\": [[\"r9\"], 7, null, [7, {}]]}", -1, false},
    {"{\"groups\": 7}", 0, true},
    {"{}", 0, true},
    {"{\"error\": \"ValueError: no\"}", 0, true},
    {NULL, 0, true},
};

START_TEST(groups)
{
    admit_all();
    submit(0);
    answer(ids[0], "{\"groups\": [[\"r2\"]]}");
    submit(1);
    ck_assert_uint_eq(n_questions, 2);
    answer(answers[_i].groups ? ids[1] : 0, answers[_i].groups);
    ck_assert_uint_eq(n_sent, answers[_i].to >= 0 ? 2 : 1);
    if (answers[_i].to >= 0 && !answers[_i].fallback)
        ck_assert_ptr_eq(sent_to[1], &backends[answers[_i].to]);
    ck_assert_uint_eq(fallbacks(), answers[_i].fallback);
    /* r2 is free again: who waits for it gets it, the others wait on */
    finish(&requests[0]);
    ck_assert_uint_eq(n_sent, answers[_i].to >= 0 || _i == 2 ? 2 : 1);
}
END_TEST

/* Others go before one that waits for a certain replica. */
START_TEST(no_blocking)
{
    admit_all();
    for (size_t i = 0; i < 3; i++)
        submit(i);
    answer(ids[0], "{\"groups\": [[\"r1\"]]}");
    answer(ids[1], "{\"groups\": [[\"r1\"]]}");
    answer(ids[2], "{\"groups\": [[\"r0\"]]}");
    ck_assert_uint_eq(n_sent, 2);
    ck_assert_ptr_eq(sent[1], &requests[2]);
    finish(&requests[0]);
    ck_assert_ptr_eq(sent[2], &requests[1]);
}
END_TEST

START_TEST(no_replica_yet)
{
    submit(0);
    ck_assert_uint_eq(n_questions, 0);
    rs_pool_admit(pool, &backends[1], true);
    ck_assert_uint_eq(n_questions, 1);
    ck_assert_uint_eq(json_array_size(json_object_get(questions[0], "replicas")), 1);
    rs_pool_admit(pool, &backends[0], true);
    ck_assert_uint_eq(n_questions, 1);
    answer(ids[0], "{\"groups\": [[\"r1\"]]}");
    ck_assert_uint_eq(n_sent, 1);
}
END_TEST

/* The process is gone: all that is asked falls back, and for a moment nothing is asked. */
START_TEST(away)
{
    admit_all();
    submit(0);
    submit(1);
    answer(0, NULL);
    ck_assert_uint_eq(n_sent, 2);
    submit(2);
    ck_assert_uint_eq(n_questions, 2);
    ck_assert_uint_eq(n_sent, 3);
    ck_assert_uint_eq(fallbacks(), 3);
    answer(ids[0], "{\"groups\": [[\"r1\"]]}"); /* from the grave */
    ck_assert_uint_eq(n_sent, 3);
}
END_TEST

START_TEST(late)
{
    admit_all();
    submit(0);
    while (n_sent == 0)
        (void)rs_loop_turn(loop, -1);
    ck_assert_uint_eq(fallbacks(), 1);
    ck_assert_str_eq(rs_json_str(questions[1], "event", ""), "late");
    answer(ids[0], "{\"groups\": [[\"r1\"]]}");
    ck_assert_uint_eq(n_sent, 1);
    submit(1);
    answer(ids[2], "{\"groups\": [[\"r1\", \"r2\", \"r0\"]]}");
    ck_assert_uint_eq(n_sent, 2);
    ck_assert_str_eq(rs_json_str(questions[3], "event", ""), "timely");
}
END_TEST

/* Nobody of its choice is free: after a pause it is asked again. */
START_TEST(asked_again)
{
    admit_all();
    submit(0);
    answer(ids[0], "{\"groups\": [[\"r9\"]]}");
    ck_assert_uint_eq(n_questions, 1);
    while (n_questions < 2)
        (void)rs_loop_turn(loop, -1);
    ck_assert_uint_ne(ids[1], ids[0]);
    answer(ids[0], "{\"groups\": [[\"r0\"]]}"); /* to the old question */
    ck_assert_uint_eq(n_sent, 0);
    answer(ids[1], "{\"groups\": [[\"r1\"]]}");
    ck_assert_ptr_eq(sent_to[0], &backends[1]);
}
END_TEST

START_TEST(cancelled)
{
    admit_all();
    submit(0);
    submit(1);
    answer(ids[1], "{\"groups\": [[\"r9\"]]}");
    rs_request_cancel(&requests[0]);
    rs_request_cancel(&requests[1]);
    ck_assert_uint_eq(pool->queue.queued, 0);
    answer(ids[0], "{\"groups\": [[\"r1\"]]}");
    ck_assert_uint_eq(n_sent, 0);
    submit(2);
    answer(ids[2], "{\"groups\": [[\"r1\"]]}");
    rs_request_cancel(&requests[2]);
    ck_assert_uint_eq(n_cancelled, 1);
}
END_TEST

START_TEST(returned)
{
    admit_all();
    submit(0);
    answer(ids[0], "{\"groups\": [[\"r1\"]]}");
    rs_request_return(&requests[0]);
    ck_assert_uint_eq(n_questions, 2);
    ck_assert_str_eq(ask_text(1, "request_id"), "q");
    ck_assert_int_eq(
        rs_json_int(json_object_get(questions[1], "request"), "internal_request_id", -1),
        rs_json_int(json_object_get(questions[0], "request"), "internal_request_id", -2));
    answer(ids[1], "{\"groups\": [[\"r2\"]]}");
    ck_assert_ptr_eq(sent_to[1], &backends[2]);
}
END_TEST

/* All want the one slot of r2. */
START_TEST(the_urgent_first_and_none_too_late)
{
    admit_all();
    submit(0);
    answer(ids[0], "{\"groups\": [[\"r2\"]]}");
    submit_with(1, 5, 0);
    submit_with(2, 9, 1); /* its time was over long ago */
    submit_with(3, 2, 0);
    submit_with(4, 7, 0);
    for (size_t i = 1; i < 5; i++)
        answer(ids[i], "{\"groups\": [[\"r2\"]]}");
    ck_assert_uint_eq(n_sent, 1);
    for (size_t i = 0; i < 4; i++)
        finish(sent[i]);
    ck_assert_uint_eq(n_sent, 4);
    ck_assert_ptr_eq(sent[1], &requests[4]);
    ck_assert_ptr_eq(sent[2], &requests[1]);
    ck_assert_ptr_eq(sent[3], &requests[3]);
    ck_assert_uint_eq(n_failed, 1);
    ck_assert_uint_eq(atomic_load(&pool_figures.dropped[RS_DROP_EXPIRED]), 1);
    ck_assert_uint_eq(pool->queue.queued, 0);
}
END_TEST

START_TEST(told)
{
    static const char *const events[] = {"routed", "completed"};

    admit_all();
    submit(0);
    answer(ids[0], "{\"groups\": [[\"r1\"]], \"tell\": true}");
    finish(&requests[0]);
    ck_assert_uint_eq(n_questions, 3);
    for (size_t i = 0; i < 2; i++) {
        ck_assert_uint_eq(ids[i + 1], 0);
        ck_assert_str_eq(rs_json_str(questions[i + 1], "event", ""), events[i]);
        ck_assert_str_eq(rs_json_str(questions[i + 1], "replica_id", ""), "r1");
    }
}
END_TEST

START_TEST(router_removed)
{
    admit_all();
    submit(0);
    submit(1);
    answer(ids[1], "{\"groups\": [[\"r9\"]]}");
    router(false);
    ck_assert_uint_eq(n_sent, 2);
    ck_assert_uint_eq(fallbacks(), 0);
    submit(2);
    ck_assert_uint_eq(n_sent, 3);
    ck_assert_uint_eq(n_questions, 2);
    finish(&requests[0]);
    router(true);
    submit(3);
    ck_assert_uint_eq(n_questions, 3);
}
END_TEST

START_TEST(deployment_gone)
{
    admit_all();
    submit(0);
    submit(1);
    answer(ids[1], "{\"groups\": [[\"r9\"]]}");
    rs_pool_forget(pool);
    ck_assert_uint_eq(n_failed, 2);
    ck_assert_uint_eq(pool->queue.queued, 0);
}
END_TEST

START_TEST(replica_dies)
{
    admit_all();
    submit(0);
    answer(ids[0], "{\"groups\": [[\"r1\"]]}");
    submit(1);
    answer(ids[1], "{\"groups\": [[\"r1\"]]}");
    rs_backend_gone(&backends[1], "killed");
    rs_pool_remove(pool, &backends[1], "killed");
    ck_assert_uint_eq(n_failed, 1);
    ck_assert_uint_eq(n_sent, 1); /* the other one waits for better advice */
    while (n_questions < 3)
        (void)rs_loop_turn(loop, -1);
    ck_assert_uint_eq(json_array_size(json_object_get(questions[2], "replicas")), 2);
}
END_TEST

RS_CHECK_MAIN("choose", tcase_add_checked_fixture(tc, setup, teardown);
              tcase_add_test(tc, asked_and_given);
              tcase_add_loop_test(tc, groups, 0, RS_COUNT(answers));
              tcase_add_test(tc, no_blocking); tcase_add_test(tc, no_replica_yet);
              tcase_add_test(tc, away); tcase_add_test(tc, late); tcase_add_test(tc, asked_again);
              tcase_add_test(tc, cancelled); tcase_add_test(tc, returned);
              tcase_add_test(tc, the_urgent_first_and_none_too_late); tcase_add_test(tc, told);
              tcase_add_test(tc, router_removed); tcase_add_test(tc, deployment_gone);
              tcase_add_test(tc, replica_dies);)
