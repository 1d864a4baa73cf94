/* A flow with its calls and timers in hand: a test answers, fails and lets time pass. */
#pragma once

#include "core/base/alloc.h"
#include "core/config/config.h"
#include "core/graph/flow.h"

#include <check.h>
#include <stdio.h>
#include <string.h>

#define MS INT64_C(1000000)

enum { CALLS_MAX = 4096 };

struct world_call {
    struct rs_task *task;
    struct rs_run *run;
    char name[40], body[200];
    int64_t at;  /* its deadline */
    char *whole; /* body */
    bool open, shadow;
};

struct world_timer {
    struct rs_task *task;
    int64_t at;
};

struct world {
    struct rs_flow *flow;
    int64_t now;
    struct world_call calls[CALLS_MAX];
    size_t n_calls;
    struct world_timer timers[CALLS_MAX];
    size_t n_timers;
    struct rs_buf log; /* what it did, in words */
    unsigned seen[RS_FLOW_DROPPED + 1];
    unsigned answers, next_id;
    void (*on_answer)(struct world *w, struct rs_run *run, struct rs_value *v);
};

static void world_observe(const struct rs_step *s, enum rs_flow_event what, enum rs_outcome o,
                          int64_t ns, void *arg)
{
    struct world *w = arg;

    ck_assert(ns >= 0 && o < RS_OUTCOME_COUNT && s->name);
    w->seen[what]++;
}

/* `graph` in YAML, over deployments a to f. */
static struct rs_plan *world_plan(const char *graph)
{
    rs_auto(rs_freep) char *text = rs_asprintf(
        "applications: [{rserve: {graph: %s}, deployments: [%s]}]", graph,
        "{name: a, rserve: {kind: exec, command: x}}, {name: b, rserve: {kind: exec, command: x}}, "
        "{name: c, rserve: {kind: exec, command: x}}, {name: d, rserve: {kind: exec, command: x}}, "
        "{name: e, rserve: {kind: exec, command: x}}, {name: f, rserve: {kind: exec, command: x}}");
    rs_auto(rs_config_freep) struct rs_config *c = NULL;
    struct rs_diags diags = {0};
    struct rs_plan *plan = NULL;
    struct rs_error err = {0};
    int r = rs_config_parse(&c, text, strlen(text), NULL, &diags);

    ck_assert_msg(r == 0, "%s: %s", graph, diags.count ? diags.items[0].text : "");
    rs_diags_fini(&diags);
    r = rs_plan_new(&plan, c->apps[0].graph, &err);
    ck_assert_msg(r == 0, "%s", err.msg);
    return plan;
}

static struct world *world_new(const char *graph)
{
    static const struct rs_hash_key key = {{1, 2}};
    struct world *w = rs_alloc(sizeof(*w));

    w->flow = rs_flow_new(world_plan(graph), &key, world_observe, w);
    w->now = 1000 * MS;
    return w;
}

static void say(struct world *w, const char *what, const char *name, const char *more)
{
    if (w->on_answer)
        return; /* nobody reads it */
    rs_buf_printf(&w->log, "%s%s %s%s%s", rs_buf_len(&w->log) ? "; " : "", what, name,
                  *more ? " " : "", more);
}

static struct world_call *call_of(struct world *w, const struct rs_task *t)
{
    for (size_t i = 0; i < w->n_calls; i++) {
        if (w->calls[i].open && w->calls[i].task == t)
            return &w->calls[i];
    }
    return NULL;
}

static void world_call(struct world *w, const struct rs_flow_action *a)
{
    struct world_call *c = &w->calls[w->n_calls];
    struct rs_error err = {0};
    const char *data = "";
    int r = rs_value_bytes(a->value, &data, &err);

    ck_assert(r == 0 && w->n_calls + 1 < CALLS_MAX);
    ck_assert_msg(!call_of(w, a->task), "two calls of one task");
    w->n_calls++;
    *c = (struct world_call){.task = a->task,
                             .run = a->run,
                             .at = a->at,
                             .open = true,
                             .shadow = rs_run_is_shadow(a->run)};
    snprintf(c->name, sizeof(c->name), "%s", rs_task_step(a->task)->name);
    c->whole = rs_strndup(data, (size_t)a->value->len);
    snprintf(c->body, sizeof(c->body), "%.*s", (int)a->value->len, data);
    say(w, c->shadow ? "shadow" : "call", c->name, c->body);
}

static void world_timer(struct world *w, const struct rs_flow_action *a)
{
    size_t i = 0;

    while (i < w->n_timers && w->timers[i].task != a->task)
        i++;
    if (!a->at) {
        if (i < w->n_timers)
            w->timers[i] = w->timers[--w->n_timers];
        return;
    }
    ck_assert(i < CALLS_MAX);
    w->n_timers += i == w->n_timers;
    w->timers[i] = (struct world_timer){a->task, a->at};
}

/* Carries out what is to be done. */
static void world_act(struct world *w)
{
    struct rs_flow_action a;

    while (rs_flow_next(w->flow, &a)) {
        struct world_call *c = a.task ? call_of(w, a.task) : NULL;
        char status[16];

        switch (a.what) {
        case RS_DO_CALL:
            world_call(w, &a);
            break;
        case RS_DO_CANCEL:
            if (c) {
                c->open = false;
                say(w, "cancel", c->name, "");
            }
            break;
        case RS_DO_TIMER:
            world_timer(w, &a);
            break;
        case RS_DO_ANSWER:
            w->answers++;
            if (w->on_answer) {
                w->on_answer(w, a.run, a.value);
                break;
            }
            snprintf(status, sizeof(status), "%u", a.value->status);
            rs_buf_printf(&w->log, "%sanswer %s %.*s", rs_buf_len(&w->log) ? "; " : "", status,
                          (int)a.value->len, a.value->len ? rs_buf_head(&a.value->body) : "");
            break;
        }
    }
}

static void put_pair(struct rs_buf *b, const char *name, const char *value)
{
    rs_buf_append(b, name, strlen(name) + 1);
    rs_buf_append(b, value, strlen(value) + 1);
}

/* `headers`: "name: value" or NULL. */
static struct rs_run *world_start(struct world *w, const char *body, const char *name,
                                  const char *value, void *data)
{
    struct rs_flow_info *i = rs_flow_info_new();
    struct rs_value *v = rs_value_new();
    size_t at;
    struct rs_run *run;

    rs_buf_printf(&i->text, "request-%u", w->next_id++);
    i->id_len = rs_buf_len(&i->text);
    if (name)
        put_pair(&i->text, name, value);
    at = rs_buf_len(&i->text);
    rs_buf_puts(&i->text, "POST /?");
    i->id = rs_buf_head(&i->text);
    i->headers = i->id + i->id_len;
    i->headers_len = at - i->id_len;
    i->target = i->id + at;
    i->target_len = 7;
    put_pair(&v->headers, "content-type", "application/json");
    rs_buf_puts(&v->body, body);
    v->len = strlen(body);
    run = rs_flow_start(w->flow, i, v, 0, data, w->now);
    world_act(w);
    return run;
}

static void world_reply(struct world *w, struct world_call *c, unsigned status, const char *body)
{
    struct rs_task *t = c->task;

    c->open = false;
    rs_flow_answered(w->flow, t, rs_value_made(status, "application/json", body, strlen(body)),
                     w->now);
    world_act(w);
}

static void world_fail(struct world *w, struct world_call *c, enum rs_outcome o)
{
    struct rs_task *t = c->task;

    c->open = false;
    rs_flow_failed(w->flow, t, o, "it died", 0, w->now);
    world_act(w);
}

/* The next timer goes off. False: there is none. */
static bool world_tick(struct world *w)
{
    struct world_timer first = {NULL, INT64_MAX};
    size_t at = 0;

    for (size_t i = 0; i < w->n_timers; i++) {
        if (w->timers[i].at < first.at) {
            first = w->timers[i];
            at = i;
        }
    }
    if (!first.task)
        return false;
    w->timers[at] = w->timers[--w->n_timers];
    if (first.at > w->now)
        w->now = first.at;
    rs_flow_due(w->flow, first.task, w->now);
    world_act(w);
    return true;
}

static void world_free(struct world *w)
{
    rs_flow_close(w->flow, w->now);
    world_act(w);
    for (size_t i = 0; i < w->n_calls; i++) {
        ck_assert_msg(!w->calls[i].open, "the call of %s was neither answered nor cancelled",
                      w->calls[i].name);
        free(w->calls[i].whole);
    }
    ck_assert_uint_eq(w->n_timers, 0);
    ck_assert(rs_flow_idle(w->flow));
    rs_flow_free(w->flow);
    rs_buf_fini(&w->log);
    free(w);
}
