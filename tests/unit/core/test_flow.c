#include "core/graph/flow.h"

#include "core/base/file.h"
#include "tests/unit/check_main.h"

#include "tests/unit/core/flow_world.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* --- one request, step by step ------------------------------------------------------------------- */

static struct world_call *open_call(struct world *w, const char *name)
{
    for (size_t i = 0; i < w->n_calls; i++) {
        if (w->calls[i].open && strcmp(w->calls[i].name, name) == 0)
            return &w->calls[i];
    }
    return NULL;
}

/* Events, one a word: "a=BODY" answers the call of a with 200, "a!404=BODY" with another status, "a-"
 * it fails, "a/" it fails for want of room, "tick" the next timer, "gone" the client leaves. */
static void play(struct world *w, struct rs_run *run, const char *events)
{
    rs_auto(rs_freep) char *copy = rs_strdup(events);
    char *rest = NULL;

    for (char *e = strtok_r(copy, " ", &rest); e; e = strtok_r(NULL, " ", &rest)) {
        size_t n = strcspn(e, "=!-/");
        char what = e[n], *body = strchr(e, '=');
        struct world_call *c;

        if (strcmp(e, "tick") == 0) {
            ck_assert_msg(world_tick(w), "no timer in %s", events);
            continue;
        }
        if (strcmp(e, "gone") == 0) {
            rs_flow_cancel(w->flow, run, w->now);
            world_act(w);
            continue;
        }
        e[n] = '\0';
        if (what == '-' && e[n + 1]) { /* a name like b-2 */
            e[n] = '-';
            n += 1 + strcspn(e + n + 1, "=!/");
            what = e[n];
            e[n] = '\0';
        }
        c = open_call(w, e);
        ck_assert_msg(c != NULL, "no call of %s in: %s", e, rs_buf_text(&w->log));
        if (what == '=' || what == '!')
            world_reply(w, c, what == '!' ? (unsigned)atoi(e + n + 1) : 200, body ? body + 1 : "");
        else
            world_fail(w, c, what == '/' ? RS_OUTCOME_OVERLOAD : RS_OUTCOME_ERROR);
    }
}

static const struct {
    const char *graph, *body, *events, *want;
} cases[] = {
    /* call */
    {"a", "1", "a=2", "call a 1; answer 200 2"},
    {"a", "1", "a!404=no", "call a 1; answer 404 no"},
    {"a", "1", "a!500=oh", "call a 1; answer 502 stage 'a' (deployment 'a'): it answered 500: oh"},
    {"a", "1", "a!503=", "call a 1; answer 503 stage 'a' (deployment 'a'): it answered 503"},
    {"a", "1", "a!504=", "call a 1; answer 504 stage 'a' (deployment 'a'): it answered 504"},
    {"a", "1", "a!302=x", "call a 1; answer 302 x"},
    {"a", "1", "a-", "call a 1; answer 502 stage 'a' (deployment 'a'): it died"},
    {"a", "1", "a/", "call a 1; answer 503 stage 'a' (deployment 'a'): it died"},
    {"a", "1", "gone", "call a 1; cancel a"},
    {"{call: a, name: x}", "1", "x-", "call x 1; answer 502 stage 'x' (deployment 'a'): it died"},
    /* timeout and retries */
    {"{call: a, timeout_s: 0.5}", "1", "tick",
     "call a 1; cancel a; answer 504 stage 'a' (deployment 'a'): no answer within 0.5 s"},
    {"{call: a, retries: 2}", "1", "a- a!500= a=2", "call a 1; call a 1; call a 1; answer 200 2"},
    {"{call: a, retries: 1}", "1", "a- a-",
     "call a 1; call a 1; answer 502 stage 'a' (deployment 'a'): it died"},
    {"{call: a, retries: 1}", "1", "a!400=no", "call a 1; answer 400 no"},
    {"{call: a, retries: 1}", "1", "a/ tick a=2", "call a 1; call a 1; answer 200 2"},
    {"{call: a, retries: 1}", "1", "a/ gone", "call a 1"},
    {"{call: a, retries: 1, timeout_s: 1}", "1", "tick a=2",
     "call a 1; cancel a; call a 1; answer 200 2"},
    /* sequence */
    {"{sequence: [a, b]}", "1", "a=2 b=3", "call a 1; call b 2; answer 200 3"},
    {"{sequence: [a, b]}", "1", "a!404=no", "call a 1; answer 404 no"},
    {"{sequence: [a, b]}", "1",
     "a!302=", "call a 1; answer 502 stage 'a' (deployment 'a'): it answered 302"},
    {"{sequence: [a, b], timeout_s: 1}", "1", "a=2 tick",
     "call a 1; call b 2; cancel b; answer 504 stage 'sequence': no answer within 1 s"},
    {"{sequence: [a, b]}", "1", "a=2 gone", "call a 1; call b 2; cancel b"},
    /* parallel */
    {"{parallel: [a, b]}", "1", "b=2 a=3", "call a 1; call b 1; answer 200 {\"a\":3,\"b\":2}"},
    {"{parallel: [a, {call: b, name: x}], merge: object}", "1", "a=1 x=2",
     "call a 1; call x 1; answer 200 {\"a\":1,\"x\":2}"},
    {"{parallel: [a, b], merge: array}", "1", "b=2 a=3", "call a 1; call b 1; answer 200 [3,2]"},
    {"{parallel: [a, b], merge: concat}", "1", "b=2 a=3", "call a 1; call b 1; answer 200 32"},
    {"{parallel: [a, b], merge: first}", "1", "b=2", "call a 1; call b 1; cancel a; answer 200 2"},
    {"{parallel: [a, b], merge: first}", "1", "b- a=2", "call a 1; call b 1; answer 200 2"},
    {"{parallel: [a, b], merge: first}", "1", "b- a-",
     "call a 1; call b 1; answer 502 stage 'a' (deployment 'a'): it died"},
    {"{parallel: [a, b]}", "1", "b-",
     "call a 1; call b 1; cancel a; answer 502 stage 'b' (deployment 'b'): it died"},
    {"{parallel: [a, b, c], need: 2}", "1", "b- a=1 c=2",
     "call a 1; call b 1; call c 1; answer 200 {\"a\":1,\"c\":2}"},
    {"{parallel: [a, b]}", "1", "a=oops b=1",
     "call a 1; call b 1; answer 502 stage 'parallel': the answer of stage 'a': expected JSON, "
     "found none: line 1, column 4: invalid token near 'oops'"},
    {"{parallel: [a, b, c], merge: vote, field: l.m}", "1",
     "a={\"l\":{\"m\":\"x\"}} b={\"l\":{\"m\":\"y\"}} c={\"l\":{\"m\":\"y\"}}",
     "call a 1; call b 1; call c 1; answer 200 {\"m\":\"y\",\"votes\":2,\"of\":3}"},
    {"{parallel: [a, b, c], merge: vote, field: m}", "1", "c={\"m\":1} b={\"m\":2} a={\"m\":3}",
     "call a 1; call b 1; call c 1; answer 200 {\"m\":3,\"votes\":1,\"of\":3}"},
    {"{parallel: [a, b, c], merge: vote}", "1", "a=1 b- c=1",
     "call a 1; call b 1; call c 1; answer 200 {\"value\":1,\"votes\":2,\"of\":2}"},
    {"{parallel: [a, b], merge: mean, field: s.1}", "1", "a={\"s\":[0,1]} b={\"s\":[0,2]}",
     "call a 1; call b 1; answer 200 {\"1\":1.5,\"of\":2}"},
    {"{parallel: [a, b], merge: mean, field: s}", "1", "a={\"s\":1} b={\"s\":\"2\"}",
     "call a 1; call b 1; answer 502 stage 'parallel': the answer of stage 'b': expected a number "
     "in the field s, found none"},
    /* switch */
    {"{switch: {header: x-to, cases: {one: a, two: b}, default: c}}", "1", "b=2",
     "call b 1; answer 200 2"},
    {"{switch: {header: x-other, cases: {one: a}, default: c}}", "1", "c=2",
     "call c 1; answer 200 2"},
    {"{switch: {header: x-to, cases: {one: a}}}", "1", "",
     "answer 400 stage 'switch': no case for the header 'x-to' with 'two'"},
    {"{switch: {header: x-other, cases: {one: a}}}", "1", "",
     "answer 400 stage 'switch': no case for the header 'x-other' which is not there"},
    {"{switch: {json: m, cases: {x: a, '7': b}}}", "{\"m\":7}", "b=2",
     "call b {\"m\":7}; answer 200 2"},
    {"{switch: {json: m, cases: {x: a}}}", "{", "",
     "answer 400 stage 'switch': the request's body: expected JSON, found none: line 1, column 1: "
     "string or '}' expected near end of file"},
    {"{switch: {weight: {a: 1}}}", "1", "a=2", "call a 1; answer 200 2"},
    /* split */
    {"{split: a}", "[1,2]", "a=3 a=4", "call a 1; call a 2; answer 200 [3,4]"},
    {"{split: a, parallelism: 1}", "[1,2]", "a=3 a=4", "call a 1; call a 2; answer 200 [3,4]"},
    {"{split: a, items: t}", "{\"t\":[\"x\"]}", "a=3", "call a \"x\"; answer 200 [3]"},
    {"{split: a}", "[]", "", "answer 200 []"},
    {"{split: a}", "[1,2,3]", "a!400=bad",
     "call a 1; call a 2; call a 3; cancel a; cancel a; answer 400 bad"},
    {"{split: a, max_items: 1}", "[1,2]", "",
     "answer 400 stage 'split': the request's body: expected at most 1 elements (max_items), found "
     "2"},
    {"{split: a}", "{}", "",
     "answer 400 stage 'split': the request's body: expected a JSON array, found none"},
    {"{sequence: [b, {split: a}]}", "1", "b=2",
     "call b 1; answer 502 stage 'split': the answer of stage 'b': expected a JSON array, found "
     "none"},
    /* fallback */
    {"{fallback: [a, b]}", "1", "a=2", "call a 1; answer 200 2"},
    {"{fallback: [a, b]}", "1", "a- b=2", "call a 1; call b 1; answer 200 2"},
    {"{fallback: [a, b]}", "1", "a!404=no", "call a 1; answer 404 no"},
    {"{fallback: [a, b], on: [refused]}", "1", "a!404=no b=2", "call a 1; call b 1; answer 200 2"},
    {"{fallback: [a, b], on: [timeout]}", "1", "a-",
     "call a 1; answer 502 stage 'a' (deployment 'a'): it died"},
    {"{fallback: [{call: a, timeout_s: 1}, b], on: [timeout]}", "1", "tick b=2",
     "call a 1; cancel a; call b 1; answer 200 2"},
    {"{fallback: [a, {answer: {json: {x: 1}}}]}", "1", "a-", "call a 1; answer 200 {\"x\":1}"},
    {"{fallback: [a, b, c]}", "1", "a- b/ c-",
     "call a 1; call b 1; call c 1; answer 502 stage 'c' (deployment 'c'): it died"},
    /* answer */
    {"{answer: {status: 410, text: gone}}", "1", "", "answer 410 gone"},
    /* shadow */
    {"{call: a, shadow: {to: b}}", "1", "a=2 b=9", "call a 1; shadow b 1; answer 200 2"},
    {"{call: a, shadow: {to: b}}", "1", "b- a=2", "call a 1; shadow b 1; answer 200 2"},
    {"{call: a, shadow: {to: b}}", "1", "gone b=3", "call a 1; shadow b 1; cancel a"},
    {"{call: a, shadow: {to: {call: b, timeout_s: 1}}}", "1", "a=2 tick",
     "call a 1; shadow b 1; answer 200 2; cancel b"},
    {"{call: a, shadow: {to: b, share: 0.0000001}}", "1", "a=2", "call a 1; answer 200 2"},
};

START_TEST(one_request)
{
    rs_auto(rs_freep) char *graph = rs_strdup(cases[_i].graph);
    struct world *w;
    struct rs_run *run;

    w = world_new(graph);
    run = world_start(w, cases[_i].body, "x-to", "two", NULL);
    play(w, run, cases[_i].events);
    ck_assert_msg(strcmp(rs_buf_text(&w->log), cases[_i].want) == 0, "%s: expected\n%s\ngot\n%s",
                  graph, cases[_i].want, rs_buf_text(&w->log));
    world_free(w);
}
END_TEST

/* --- many requests ------------------------------------------------------------------------------- */

#define CACHED "{call: a, cache: {ttl_s: 10, max_bytes: 65536, headers: [x-who]}}"

static void forget_log(struct world *w)
{
    rs_buf_clear(&w->log);
}

#define ck_log(w, text) ck_assert_str_eq(rs_buf_text(&(w)->log), text)

START_TEST(cache_hits_until_its_time_is_over)
{
    struct world *w = world_new(CACHED);

    world_start(w, "1", NULL, NULL, NULL);
    world_reply(w, open_call(w, "a"), 200, "one");
    world_start(w, "1", NULL, NULL, NULL);
    world_start(w, "2", NULL, NULL, NULL);
    world_reply(w, open_call(w, "a"), 200, "two");
    world_start(w, "1", "x-who", "me", NULL);
    world_reply(w, open_call(w, "a"), 200, "mine");
    world_start(w, "1", "x-who", "me", NULL);
    ck_log(w,
           "call a 1; answer 200 one; answer 200 one; call a 2; answer 200 two; call a 1; answer "
           "200 mine; answer 200 mine");
    ck_assert_uint_eq(w->seen[RS_FLOW_HIT], 2);
    ck_assert_uint_eq(w->seen[RS_FLOW_MISS], 3);
    forget_log(w);
    w->now += 10000 * MS;
    world_start(w, "1", NULL, NULL, NULL);
    world_reply(w, open_call(w, "a"), 200, "new");
    ck_log(w, "call a 1; answer 200 new");
    world_free(w);
}
END_TEST

START_TEST(cache_keeps_no_errors)
{
    static const unsigned statuses[] = {404, 500, 503, 302};
    struct world *w = world_new(CACHED);

    for (size_t i = 0; i < RS_COUNT(statuses); i++) {
        world_start(w, "1", NULL, NULL, NULL);
        ck_assert_ptr_nonnull(open_call(w, "a"));
        world_reply(w, open_call(w, "a"), statuses[i], "no");
    }
    ck_assert_uint_eq(w->seen[RS_FLOW_HIT], 0);
    ck_assert_uint_eq(rs_flow_cached(w->flow), 0);
    world_free(w);
}
END_TEST

START_TEST(equal_requests_share_one_call)
{
    struct world *w = world_new(CACHED);

    for (int i = 0; i < 3; i++)
        world_start(w, "1", NULL, NULL, NULL);
    world_reply(w, open_call(w, "a"), 200, "one");
    ck_log(w, "call a 1; answer 200 one; answer 200 one; answer 200 one");
    ck_assert_uint_eq(w->seen[RS_FLOW_SHARED], 2);
    forget_log(w);
    for (int i = 0; i < 2; i++)
        world_start(w, "2", NULL, NULL, NULL);
    world_reply(w, open_call(w, "a"), 404, "no");
    ck_log(w, "call a 2; answer 404 no; answer 404 no");
    world_free(w);
}
END_TEST

START_TEST(a_leader_that_leaves_hands_over)
{
    struct world *w = world_new(CACHED);
    struct rs_run *first = world_start(w, "1", NULL, NULL, NULL);
    struct rs_run *second = world_start(w, "1", NULL, NULL, NULL);

    world_start(w, "1", NULL, NULL, NULL);
    rs_flow_cancel(w->flow, first, w->now);
    world_act(w);
    rs_flow_cancel(w->flow, second, w->now);
    world_act(w);
    world_reply(w, open_call(w, "a"), 200, "one");
    ck_log(w, "call a 1; cancel a; call a 1; cancel a; call a 1; answer 200 one");
    world_free(w);
}
END_TEST

START_TEST(a_leader_without_time_hands_over)
{
    struct world *w = world_new("{call: a, timeout_s: 1, cache: {ttl_s: 10, max_bytes: 65536}}");

    world_start(w, "1", NULL, NULL, NULL);
    w->now += 500 * MS;
    world_start(w, "1", NULL, NULL, NULL);
    world_tick(w);
    ck_log(w, "call a 1; cancel a; answer 504 stage 'a' (deployment 'a'): no answer within 1 s; "
              "call a 1");
    world_reply(w, open_call(w, "a"), 200, "one");
    world_free(w);
}
END_TEST

START_TEST(a_cache_stays_within_its_bytes)
{
    struct world *w = world_new(CACHED);
    char body[16];
    rs_auto(rs_freep) char *answer = rs_alloc(3001);

    memset(answer, 'x', 3000);
    for (int i = 0; i < 200; i++) {
        snprintf(body, sizeof(body), "%d", i);
        world_start(w, body, NULL, NULL, NULL);
        world_reply(w, open_call(w, "a"), 200, answer);
        ck_assert_uint_le(rs_flow_cached(w->flow), 65536);
    }
    ck_assert_uint_gt(rs_flow_cached(w->flow), 30000);
    world_start(w, "199", NULL, NULL, NULL); /* the last one is there, the first one is not */
    ck_assert_ptr_null(open_call(w, "a"));
    world_start(w, "0", NULL, NULL, NULL);
    ck_assert_ptr_nonnull(open_call(w, "a"));
    world_free(w);
}
END_TEST

START_TEST(without_budget)
{
    struct world *w = world_new("{call: a, retries: 10, retry_budget: 0}");
    unsigned calls = 0;

    for (int i = 0; i < 3; i++) {
        world_start(w, "1", NULL, NULL, NULL);
        for (struct world_call *c; (c = open_call(w, "a"));) {
            world_fail(w, c, RS_OUTCOME_ERROR);
            calls++;
        }
    }
    ck_assert_uint_eq(calls, 3 + 10); /* what was saved up at first */
    world_free(w);
}
END_TEST

START_TEST(weights_are_kept_and_sticky)
{
    struct world *w = world_new("{switch: {weight: {a: 90, b: 10}, sticky: x-user}}");
    unsigned b = 0;
    char user[16];

    for (int i = 0; i < 2000; i++) {
        snprintf(user, sizeof(user), "u%d", i / 2);
        world_start(w, "1", "x-user", user, NULL);
    }
    for (size_t i = 0; i < w->n_calls; i += 2) {
        ck_assert_str_eq(w->calls[i].name, w->calls[i + 1].name);
        b += w->calls[i].name[0] == 'b';
    }
    ck_assert_uint_ge(b, 70); /* of 1000 users; the hash is always the same */
    ck_assert_uint_le(b, 130);
    world_free(w);
}
END_TEST

START_TEST(shadows_are_bounded)
{
    struct world *w = world_new("{call: a, shadow: {to: b, limit: 2}}");

    for (int i = 0; i < 5; i++)
        world_start(w, "1", NULL, NULL, NULL);
    ck_assert_uint_eq(w->seen[RS_FLOW_DROPPED], 3);
    world_reply(w, open_call(w, "b"), 200, "x");
    world_start(w, "1", NULL, NULL, NULL);
    ck_assert_uint_eq(w->seen[RS_FLOW_DROPPED], 3);
    while (open_call(w, "b")) /* nobody answers them: their time ends */
        ck_assert(world_tick(w));
    world_free(w);
}
END_TEST

static char later[16];

static void note_later(struct world *w, struct rs_run *run, struct rs_value *v)
{
    const char *text = rs_value_header(v, "retry-after");

    ck_assert(w && run && v->status == 503);
    snprintf(later, sizeof(later), "%s", text ? text : "");
}

/* When there may be room is told to who asked, whoever said so. */
START_TEST(retry_after_is_told)
{
    struct world *w = world_new("{sequence: [{fallback: [a, b]}]}");
    struct rs_value *v;
    struct world_call *c;

    w->on_answer = note_later;
    world_start(w, "1", NULL, NULL, NULL);
    world_fail(w, open_call(w, "a"), RS_OUTCOME_OVERLOAD);
    c = open_call(w, "b");
    c->open = false;
    rs_flow_failed(w->flow, c->task, RS_OUTCOME_OVERLOAD, "full", 7, w->now);
    world_act(w);
    ck_assert_str_eq(later, "7");
    world_start(w, "1", NULL, NULL, NULL);
    world_fail(w, open_call(w, "a"), RS_OUTCOME_OVERLOAD);
    c = open_call(w, "b");
    c->open = false;
    v = rs_value_made(503, NULL, "", 0);
    rs_value_put_header(v, "retry-after", "30");
    rs_flow_answered(w->flow, c->task, v, w->now);
    world_act(w);
    ck_assert_str_eq(later, "30");
    world_free(w);
}
END_TEST

/* What a cache has of a long answer is its own: who made the memfd cannot change it. */
START_TEST(a_cache_owns_what_it_keeps)
{
    struct world *w = world_new("{call: a, cache: {ttl_s: 10, max_bytes: 65536}}");
    struct rs_value *v = rs_value_new();
    int fd = memfd_create("test", MFD_CLOEXEC), r = rs_file_write(fd, "true", 4, 0);
    struct world_call *c;

    ck_assert_int_eq(r, 0);
    world_start(w, "1", NULL, NULL, NULL);
    c = open_call(w, "a");
    c->open = false;
    v->status = 200;
    v->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    v->len = 4;
    rs_value_ref(v);
    rs_flow_answered(w->flow, c->task, v, w->now);
    world_act(w);
    r = rs_file_write(fd, "evil", 4, 0);
    ck_assert_int_eq(r, 0);
    close(fd);
    {
        const char *data = NULL;
        struct rs_error err = {0};

        r = rs_value_bytes(v, &data, &err);
        ck_assert_int_eq(r, 0);
        ck_assert_int_eq(memcmp(data, "true", 4), 0);
        ck_assert_int_lt(rs_file_write(v->fd, "evil", 4, 0), 0);
    }
    rs_value_unref(v);
    world_free(w);
}
END_TEST

START_TEST(a_graph_takes_so_many)
{
    struct world *w = world_new("{call: a, max_ongoing_requests: 2}");

    for (int i = 0; i < 3; i++)
        world_start(w, "1", NULL, NULL, NULL);
    ck_log(w, "call a 1; call a 1; answer 503 the graph works on 2 requests already "
              "(max_ongoing_requests)");
    world_free(w);
}
END_TEST

START_TEST(what_is_last_may_stream)
{
    static const struct {
        const char *graph, *name;
        bool streams;
    } ways[] = {
        {"a", "a", true},
        {"{sequence: [b, a]}", "a", true},
        {"{fallback: [a, b]}", "a", true},
        {"{switch: {weight: {a: 1}}}", "a", true},
        {"{sequence: [a, b]}", "a", false},
        {"{parallel: [a, b], merge: first}", "a", false},
        {CACHED, "a", false},
        {"{call: b, shadow: {to: a}}", "a", false},
    };

    for (size_t i = 0; i < RS_COUNT(ways); i++) {
        struct world *w = world_new(ways[i].graph);
        struct world_call *c;

        world_start(w, "1", NULL, NULL, NULL);
        if (strcmp(ways[i].graph, "{sequence: [b, a]}") == 0)
            world_reply(w, open_call(w, "b"), 200, "2");
        c = open_call(w, ways[i].name);
        ck_assert_int_eq(rs_flow_begun(w->flow, c->task), ways[i].streams);
        world_act(w);
        if (ways[i].streams) {
            c->open = false;
            rs_flow_streamed(w->flow, c->task, true, w->now);
            world_act(w);
            ck_assert_uint_eq(w->answers, 0);
            ck_assert(rs_flow_idle(w->flow));
        }
        world_free(w);
    }
}
END_TEST

/* A stream that is not wanted any more is a call that is cancelled. */
START_TEST(a_stream_is_cancelled)
{
    struct world *w = world_new("{call: a, timeout_s: 1}");
    struct rs_run *run = world_start(w, "1", NULL, NULL, NULL);

    ck_assert(rs_flow_begun(w->flow, open_call(w, "a")->task));
    world_act(w);
    ck_assert_uint_eq(w->n_timers, 0);
    rs_flow_cancel(w->flow, run, w->now);
    world_act(w);
    ck_log(w, "call a 1; cancel a");
    world_free(w);
}
END_TEST

RS_CHECK_MAIN("flow", tcase_add_loop_test(tc, one_request, 0, RS_COUNT(cases));
              tcase_add_test(tc, cache_hits_until_its_time_is_over);
              tcase_add_test(tc, cache_keeps_no_errors);
              tcase_add_test(tc, equal_requests_share_one_call);
              tcase_add_test(tc, a_leader_that_leaves_hands_over);
              tcase_add_test(tc, a_leader_without_time_hands_over);
              tcase_add_test(tc, a_cache_stays_within_its_bytes);
              tcase_add_test(tc, without_budget); tcase_add_test(tc, weights_are_kept_and_sticky);
              tcase_add_test(tc, shadows_are_bounded); tcase_add_test(tc, a_graph_takes_so_many);
              tcase_add_test(tc, what_is_last_may_stream); tcase_add_test(tc, retry_after_is_told);
              tcase_add_test(tc, a_cache_owns_what_it_keeps);
              tcase_add_test(tc, a_stream_is_cancelled);)
