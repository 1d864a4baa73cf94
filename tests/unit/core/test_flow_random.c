/* Random graphs, random events. Whatever happens: each request ends exactly once, nothing is called for
 * one that has ended, each call that was made is answered or cancelled, and of a cached step one call
 * per input is under way. Where stages only succeed, each answer is what the graph means, however its
 * caches, cancelled neighbours and the order of events were. */
#include "core/graph/flow.h"
#include "tests/unit/check_main.h"

#include "tests/unit/core/flow_world.h"

#include <stdlib.h>

enum { GRAPHS = 150, EVENTS = 400, RUNS_MAX = 400, TOGETHER = 12, BODIES = 5 };

static uint64_t seed;

static unsigned pick(unsigned n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned)(seed >> 20) % n;
}

/* --- graphs -------------------------------------------------------------------------------------- */

static void put_step(struct rs_buf *out, int depth, bool calm);

static void put_list(struct rs_buf *out, unsigned n, int depth, bool calm)
{
    rs_buf_puts(out, "[");
    for (unsigned i = 0; i < n; i++) {
        rs_buf_puts(out, i ? ", " : "");
        put_step(out, depth - 1, calm);
    }
    rs_buf_puts(out, "]");
}

static void put_call(struct rs_buf *out, bool calm)
{
    rs_buf_printf(out, "call: %c", 'a' + (int)pick(6));
    if (!calm && pick(3) == 0)
        rs_buf_printf(out, ", retries: %u", pick(4));
}

static void put_parallel(struct rs_buf *out, int depth, bool calm)
{
    static const char *const merges[] = {"array", "vote", "concat", "first"};
    unsigned n = 1 + pick(4);

    rs_buf_puts(out, "parallel: ");
    put_list(out, n, depth, calm);
    rs_buf_printf(out, ", merge: %s", merges[pick(calm ? 2 : 4)]);
    if (!calm && pick(2))
        rs_buf_printf(out, ", need: %u", 1 + pick(n));
}

static void put_switch(struct rs_buf *out, int depth, bool calm)
{
    if (pick(2)) {
        rs_buf_printf(out, "switch: {weight: {a: %u, b: %u}}", 1 + pick(5), 1 + pick(5));
        return;
    }
    rs_buf_puts(out, "switch: {json: n, cases: {a: ");
    put_step(out, depth - 1, calm);
    rs_buf_puts(out, ", q1: ");
    put_step(out, depth - 1, calm);
    rs_buf_puts(out, "}, default: ");
    put_step(out, depth - 1, calm);
    rs_buf_puts(out, "}");
}

static void put_split(struct rs_buf *out, int depth, bool calm)
{
    rs_buf_puts(out, "sequence: [{parallel: ");
    put_list(out, 1 + pick(4), depth, calm);
    rs_buf_puts(out, ", merge: array}, {split: ");
    put_step(out, depth - 1, calm);
    rs_buf_printf(out, ", parallelism: %u}]", 1 + pick(3));
}

static void put_step(struct rs_buf *out, int depth, bool calm)
{
    rs_buf_puts(out, "{");
    switch (depth <= 0 ? 0 : pick(7)) {
    case 1:
        rs_buf_puts(out, "sequence: ");
        put_list(out, 1 + pick(3), depth, calm);
        break;
    case 2:
        put_parallel(out, depth, calm);
        break;
    case 3:
        put_switch(out, depth, calm);
        break;
    case 4:
        put_split(out, depth, calm);
        break;
    case 5:
        rs_buf_puts(out, "fallback: ");
        put_list(out, 2 + pick(2), depth, calm);
        break;
    case 6:
        rs_buf_printf(out, "answer: {json: {n: k, h: %u}}", pick(3));
        break;
    default:
        put_call(out, calm);
        break;
    }
    if (pick(4) == 0)
        rs_buf_printf(out, ", cache: {ttl_s: %u, max_bytes: 65536}", 1 + pick(20));
    if (!calm && pick(4) == 0)
        rs_buf_printf(out, ", timeout_s: %u", 1 + pick(5));
    if (pick(8) == 0) {
        rs_buf_printf(out, ", shadow: {limit: %u, to: ", 1 + pick(3));
        put_step(out, 0, calm);
        rs_buf_puts(out, "}");
    }
    rs_buf_puts(out, "}");
}

/* --- what a graph means -------------------------------------------------------------------------- */

static char *stage_answer(const char *deployment, const char *body)
{
    uint64_t h = 5381;

    for (; *body; body++)
        h = h * 33 + (unsigned char)*body;
    return rs_asprintf("{\"h\":%llu,\"n\":\"%s\"}", (unsigned long long)(h % 1000000007),
                       deployment);
}

static char *meant(const struct rs_step *s, const char *body, const char *id);

static char *meant_array(const struct rs_step *s, const char *body, const char *id)
{
    struct rs_buf out = {0};

    for (unsigned i = 0; i < s->n_kids; i++) {
        rs_auto(rs_freep) char *one = meant(s->kids[i], body, id);

        rs_buf_printf(&out, "%s%s", i ? "," : "[", one);
    }
    rs_buf_puts(&out, "]");
    return rs_buf_steal(&out);
}

static char *sorted(const char *text)
{
    rs_auto(rs_json_decrefp) json_t *j = json_loads(text, JSON_DECODE_ANY, NULL);

    return json_dumps(j, JSON_ENCODE_ANY | JSON_COMPACT | JSON_SORT_KEYS);
}

static char *meant_vote(const struct rs_step *s, const char *body, const char *id)
{
    rs_auto(rs_freep) char *all = meant_array(s, body, id);
    rs_auto(rs_json_decrefp) json_t *list = json_loads(all, 0, NULL);
    size_t best = 0, votes = 0;

    for (size_t i = 0; i < json_array_size(list); i++) {
        size_t n = 0;

        for (size_t k = 0; k < json_array_size(list); k++)
            n += (size_t)json_equal(json_array_get(list, i), json_array_get(list, k));
        if (n > votes) {
            votes = n;
            best = i;
        }
    }
    rs_auto(rs_freep) char *raw =
        json_dumps(json_array_get(list, best), JSON_ENCODE_ANY | JSON_COMPACT);
    rs_auto(rs_freep) char *value = sorted(raw);

    return rs_asprintf("{\"value\":%s,\"votes\":%zu,\"of\":%zu}", value, votes,
                       json_array_size(list));
}

static char *meant_switch(const struct rs_step *s, const char *body, const char *id)
{
    rs_auto(rs_json_decrefp) json_t *doc = json_loads(body, JSON_DECODE_ANY, NULL);
    const char *n = json_string_value(json_object_get(doc, "n"));
    double sum = 0, lot;
    unsigned k = 0;

    if (s->by == RS_SWITCH_JSON) {
        while (k + 1 < s->n_kids && (!n || strcmp(s->values[k], n) != 0))
            k++;
        return meant(s->kids[k], body, id);
    }
    for (unsigned i = 0; i < s->n_kids; i++)
        sum += s->weights[i];
    lot = rs_flow_lot(id, strlen(id), s->name) * sum;
    for (; k + 1 < s->n_kids && lot >= s->weights[k]; k++)
        lot -= s->weights[k];
    return meant(s->kids[k], body, id);
}

static char *meant_split(const struct rs_step *s, const char *body, const char *id)
{
    rs_auto(rs_json_decrefp) json_t *list = json_loads(body, 0, NULL);
    struct rs_buf out = {0};

    rs_buf_puts(&out, "[");
    for (size_t i = 0; i < json_array_size(list); i++) {
        rs_auto(rs_freep) char *item =
            json_dumps(json_array_get(list, i), JSON_ENCODE_ANY | JSON_COMPACT);
        rs_auto(rs_freep) char *one = meant(s->kids[0], item, id);

        rs_buf_printf(&out, "%s%s", i ? "," : "", one);
    }
    rs_buf_puts(&out, "]");
    return rs_buf_steal(&out);
}

static char *meant(const struct rs_step *s, const char *body, const char *id)
{
    char *now;

    switch (s->kind) {
    case RS_STEP_CALL:
        return stage_answer(s->deployment, body);
    case RS_STEP_PARALLEL:
        return s->merge == RS_MERGE_ARRAY ? meant_array(s, body, id) : meant_vote(s, body, id);
    case RS_STEP_SWITCH:
        return meant_switch(s, body, id);
    case RS_STEP_SPLIT:
        return meant_split(s, body, id);
    case RS_STEP_FALLBACK: /* nothing fails */
        return meant(s->kids[0], body, id);
    case RS_STEP_ANSWER:
        return rs_strdup(s->text);
    default:
        now = rs_strdup(body);
        for (unsigned i = 0; i < s->n_kids; i++) {
            char *next = meant(s->kids[i], now, id);

            free(now);
            now = next;
        }
        return now;
    }
}

/* --- events -------------------------------------------------------------------------------------- */

struct asked {
    struct rs_run *run;
    unsigned body, id;
    bool over;
    char *want; /* NULL: anything */
};

static struct asked asked[RUNS_MAX];
static size_t n_asked;

static void on_answer(struct world *w, struct rs_run *run, struct rs_value *v)
{
    struct asked *a = rs_run_data(run);

    (void)w;
    ck_assert_msg(!a->over, "a request was answered twice, or after it was cancelled");
    a->over = true;
    ck_assert_uint_ge(v->status, 200);
    if (!a->want)
        return;
    ck_assert_msg(v->status == 200 && strlen(a->want) == v->len &&
                      memcmp(a->want, rs_buf_head(&v->body), (size_t)v->len) == 0,
                  "expected %s\ngot %u %.*s", a->want, v->status, (int)v->len,
                  rs_buf_head(&v->body));
}

/* Caches make no difference to what a weight decides by, the id: so a cached one may keep another's. */
static bool depends_on_id(const struct rs_plan *p)
{
    bool weight = false, cache = false;

    for (unsigned i = 0; i < p->count; i++) {
        weight = weight || (p->steps[i]->kind == RS_STEP_SWITCH && p->steps[i]->weights);
        cache = cache || p->steps[i]->cache.ttl;
    }
    return weight && cache;
}

static void ask(struct world *w, bool calm)
{
    struct asked *a = &asked[n_asked++];
    char id[32], body[32];

    *a = (struct asked){.body = pick(BODIES), .id = w->next_id};
    snprintf(body, sizeof(body), "{\"n\":\"q%u\",\"h\":%u}", a->body, a->body);
    snprintf(id, sizeof(id), "request-%u", a->id);
    if (calm && !depends_on_id(rs_flow_plan(w->flow)))
        a->want = meant(rs_flow_plan(w->flow)->steps[0], body, id);
    a->run = world_start(w, body, NULL, NULL, a);
}

static struct world_call *any_call(struct world *w)
{
    size_t n = 0, k;

    for (size_t i = 0; i < w->n_calls; i++)
        n += w->calls[i].open;
    if (!n)
        return NULL;
    k = pick((unsigned)n);
    for (size_t i = 0;; i++) {
        if (w->calls[i].open && k-- == 0)
            return &w->calls[i];
    }
}

static void check_calls(struct world *w)
{
    for (size_t i = 0; i < w->n_calls; i++) {
        const struct world_call *c = &w->calls[i];
        const struct asked *a = c->open && !c->shadow ? rs_run_data(c->run) : NULL;

        if (!c->open)
            continue;
        ck_assert_msg(!a || !a->over, "a call for a request that has ended");
        for (size_t k = 0; k < i && rs_task_step(c->task)->cache.ttl; k++)
            ck_assert_msg(!w->calls[k].open ||
                              rs_task_step(w->calls[k].task) != rs_task_step(c->task) ||
                              strcmp(w->calls[k].body, c->body) != 0 ||
                              strlen(c->body) >= sizeof(c->body) - 1,
                          "two calls of a cached step with one key");
    }
}

static void reply_well(struct world *w, struct world_call *c)
{
    rs_auto(rs_freep) char *body = stage_answer(rs_task_step(c->task)->deployment, c->whole);

    world_reply(w, c, 200, body);
}

static void reply_ill(struct world *w, struct world_call *c)
{
    static const unsigned statuses[] = {200, 204, 302, 400, 404, 429, 500, 503, 504};
    static const char *const bodies[] = {"", "{", "[1,2]", "{\"n\":\"a\"}", "7"};

    switch (pick(4)) {
    case 0:
        world_reply(w, c, statuses[pick(RS_COUNT(statuses))], bodies[pick(RS_COUNT(bodies))]);
        break;
    case 1:
        world_fail(w, c, (enum rs_outcome)(1 + pick(3)));
        break;
    case 2:
        if (rs_flow_begun(w->flow, c->task)) {
            struct asked *a = rs_run_data(c->run);
            struct rs_task *t = c->task;

            ck_assert(!c->shadow && !a->over);
            a->over = true; /* the stream's end is its end */
            c->open = false;
            world_act(w);
            rs_flow_streamed(w->flow, t, pick(2), w->now);
            world_act(w);
            break;
        }
        world_act(w);
        __attribute__((fallthrough));
    default:
        reply_well(w, c);
        break;
    }
}

static void leave(struct world *w)
{
    struct asked *a = &asked[pick((unsigned)n_asked)];

    if (a->over)
        return;
    a->over = true;
    rs_flow_cancel(w->flow, a->run, w->now);
    world_act(w);
}

static void forget_closed(struct world *w)
{
    size_t n = 0;

    for (size_t i = 0; i < w->n_calls; i++) {
        if (w->calls[i].open)
            w->calls[n++] = w->calls[i];
        else
            free(w->calls[i].whole);
    }
    w->n_calls = n;
}

static void event(struct world *w, bool calm)
{
    struct world_call *c = any_call(w);
    unsigned what = pick(10), going = 0;

    for (size_t i = 0; i < n_asked; i++)
        going += !asked[i].over;
    w->now += pick(100) * MS;
    if ((what < 3 || !c) && going < TOGETHER && n_asked < RUNS_MAX)
        ask(w, calm);
    else if (what == 3 && n_asked)
        leave(w);
    else if (what == 4 && !calm)
        (void)world_tick(w);
    else if (c && !calm && pick(3) == 0)
        reply_ill(w, c);
    else if (c)
        reply_well(w, c);
    check_calls(w);
    forget_closed(w);
}

/* Everybody who still waits gets an answer. */
static void finish(struct world *w)
{
    struct world_call *c;
    int rounds = 0;

    while ((c = any_call(w)) || w->n_timers) {
        if (c)
            reply_well(w, c);
        else
            (void)world_tick(w);
        forget_closed(w);
        ck_assert_int_lt(rounds++, 1000000);
    }
    for (size_t i = 0; i < n_asked; i++) {
        ck_assert_msg(asked[i].over, "a request never ended");
        free(asked[i].want);
    }
    ck_assert_uint_eq(rs_flow_runs(w->flow), 0);
}

static void play(unsigned graph, bool calm)
{
    struct rs_buf text = {0};
    struct world *w;

    seed = 88172645463325252ULL + graph * UINT64_C(2654435761);
    put_step(&text, 3, calm);
    w = world_new(rs_buf_text(&text));
    w->on_answer = on_answer;
    n_asked = 0;
    for (int i = 0; i < EVENTS; i++)
        event(w, calm);
    finish(w);
    world_free(w);
    rs_buf_fini(&text);
}

START_TEST(calm)
{
    for (unsigned i = 0; i < GRAPHS; i++)
        play(i, true);
}
END_TEST

START_TEST(storm)
{
    for (unsigned i = 0; i < GRAPHS; i++)
        play(i, false);
}
END_TEST

RS_CHECK_MAIN("flow_random", tcase_set_timeout(tc, 55); tcase_add_test(tc, calm);
              tcase_add_test(tc, storm);)
