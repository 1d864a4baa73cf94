/* What each kind of step does when it starts, and when one below it has ended. */
#include "core/graph/flow-internal.h"

#include "core/base/alloc.h"
#include "core/base/json.h"
#include "core/base/text.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAUSE_NS INT64_C(10000000) /* before the second try where there was no room; then doubled */
#define SAVED_MAX 10.0             /* retries */

enum { SAID_MAX = 200 }; /* columns of what a stage that failed had to say */

/* --- calls ------------------------------------------------------------------------------------- */

/* By when it must have answered: the soonest of those above it that are in a hurry. */
static int64_t deadline_of(const struct rs_task *t)
{
    int64_t at = t->run->deadline;

    for (; t; t = t->parent) {
        if (t->due && (!at || t->due < at))
            at = t->due;
    }
    return at;
}

void rs_task_call(struct rs_task *t, int64_t now)
{
    struct rs_flow *f = t->run->flow;

    if (t->tries++ == 0)
        f->tokens = f->tokens + f->plan->retry_budget > SAVED_MAX
                        ? SAVED_MAX
                        : f->tokens + f->plan->retry_budget;
    if (t->step->timeout && !t->timed)
        rs_task_timer(t, now + t->step->timeout);
    t->state = RS_TASK_CALLING;
    rs_flow_act(f, (struct rs_flow_action){.what = RS_DO_CALL,
                                           .run = t->run,
                                           .task = t,
                                           .value = rs_value_ref(t->input),
                                           .at = deadline_of(t)});
}

/* Once more, if that is allowed and affordable. */
static bool try_again(struct rs_task *t, enum rs_outcome o, int64_t now)
{
    struct rs_flow *f = t->run->flow;
    const struct rs_run *run = t->run;

    if (t->step->kind != RS_STEP_CALL || o == RS_OUTCOME_OK || o == RS_OUTCOME_REFUSED ||
        t->tries > t->step->retries || !t->tries || f->tokens < 1)
        return false;
    if (run->deadline && now >= run->deadline)
        return false;
    f->tokens -= 1;
    f->observe(t->step, RS_FLOW_RETRY, o, 0, f->arg);
    rs_task_timer(t, 0);
    if (o != RS_OUTCOME_OVERLOAD) {
        rs_task_call(t, now);
        return true;
    }
    t->state = RS_TASK_PAUSED;
    rs_task_timer(t, now + (PAUSE_NS << (t->tries - 1)));
    return true;
}

static enum rs_outcome outcome_of(const struct rs_step *s, unsigned status)
{
    if (status == 429 || status == 503)
        return RS_OUTCOME_OVERLOAD;
    if (status == 504)
        return RS_OUTCOME_TIMEOUT;
    if (status >= 400 && status < 500)
        return RS_OUTCOME_REFUSED;
    if (status >= 200 && (status < 300 || (status < 400 && s->tail)))
        return RS_OUTCOME_OK;
    return RS_OUTCOME_ERROR;
}

/* A line that says which stage it was, in place of an answer that says nothing about that. */
static struct rs_value *explain(const struct rs_task *t, enum rs_outcome o, struct rs_value *v)
{
    const char *type = rs_value_header(v, "content-type"), *data = "";
    const char *later = rs_value_header(v, "retry-after");
    struct rs_error err;
    char label[192];
    bool is_text = !type || strncmp(type, "text/", 5) == 0 || strstr(type, "json");
    size_t n = v->len < 4 * SAID_MAX ? (size_t)v->len : 4 * SAID_MAX;
    rs_auto(rs_buf_fini) struct rs_buf said = {0};
    rs_auto(rs_freep) char *text = NULL;
    struct rs_value *line;

    if (!is_text || rs_value_bytes(v, &data, &err) < 0)
        n = 0;
    while (n && (data[n - 1] == '\n' || data[n - 1] == '\r'))
        n--;
    text = rs_strndup(data, n);
    rs_text_fit(&said, text, SAID_MAX);
    rs_task_label(t, label, sizeof(label));
    line = rs_value_line(o == RS_OUTCOME_OVERLOAD  ? 503
                         : o == RS_OUTCOME_TIMEOUT ? 504
                                                   : 502,
                         "%s: it answered %u%s%s", label, v->status, rs_buf_len(&said) ? ": " : "",
                         rs_buf_text(&said));
    if (later)
        rs_value_put_header(line, "retry-after", later);
    return line;
}

void rs_task_judge(struct rs_task *t, enum rs_outcome o, struct rs_value *value, int64_t now)
{
    if (o == RS_OUTCOME_OK) {
        o = outcome_of(t->step, value->status);
        if (o != RS_OUTCOME_OK && o != RS_OUTCOME_REFUSED) {
            struct rs_value *line = explain(t, o, value);

            rs_value_unref(value);
            value = line;
        }
    }
    if (try_again(t, o, now)) {
        rs_value_unref(value);
        return;
    }
    rs_task_end(t, o, value);
}

/* --- starting ---------------------------------------------------------------------------------- */

static void kid(struct rs_task *t, size_t i, struct rs_value *input)
{
    rs_task_new(t->run, t->step->kids[i], t, i, input);
}

static void make_outputs(struct rs_task *t, size_t n)
{
    t->outputs = rs_alloc((n + 1) * sizeof(struct rs_value *));
    t->n_outputs = n;
}

static void start_all(struct rs_task *t)
{
    make_outputs(t, t->step->n_kids);
    for (size_t i = 0; i < t->step->n_kids; i++)
        kid(t, i, t->input);
}

static const char *header_of(const struct rs_flow_info *i, const char *name)
{
    const char *at = i->headers, *end = at + i->headers_len;

    while (at < end) {
        const char *value = at + strlen(at) + 1;

        if (value >= end)
            break;
        if (strcmp(at, name) == 0)
            return value;
        at = value + strlen(value) + 1;
    }
    return NULL;
}

static size_t by_weight(const struct rs_task *t)
{
    const struct rs_step *s = t->step;
    const struct rs_flow_info *i = t->run->info;
    const char *text = s->header ? header_of(i, s->header) : NULL;
    double sum = 0, lot;
    size_t k = 0;

    for (size_t n = 0; n < s->n_kids; n++)
        sum += s->weights[n];
    lot = text ? rs_flow_lot(text, strlen(text), s->name) : rs_flow_lot(i->id, i->id_len, s->name);
    for (lot *= sum; k + 1 < s->n_kids && lot >= s->weights[k]; k++)
        lot -= s->weights[k];
    return k;
}

/* The value that decides, as a text to be freed; NULL: none, with `err` if that is an error. */
static char *deciding(const struct rs_task *t, struct rs_error *err)
{
    const struct rs_step *s = t->step;
    const json_t *doc, *value;
    const char *text;

    if (s->by == RS_SWITCH_HEADER) {
        text = header_of(t->run->info, s->header);
        return text ? rs_strdup(text) : NULL;
    }
    if (rs_value_json(t->input, &doc, err) < 0)
        return NULL;
    value = rs_json_at(doc, s->field);
    if (json_is_string(value))
        return rs_strdup(json_string_value(value));
    return value ? json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
}

static void choose(struct rs_task *t)
{
    const struct rs_step *s = t->step;
    struct rs_error err = {0};
    rs_auto(rs_freep) char *value = NULL;
    char label[192];

    if (s->by == RS_SWITCH_WEIGHT) {
        kid(t, by_weight(t), t->input);
        return;
    }
    value = deciding(t, &err);
    if (err.msg[0] && !s->has_default) {
        rs_task_blame(t, t->input, &err);
        return;
    }
    for (size_t i = 0; value && i < s->n_kids; i++) {
        if (s->values[i] && strcmp(s->values[i], value) == 0) {
            kid(t, i, t->input);
            return;
        }
    }
    if (s->has_default) {
        kid(t, s->n_kids - 1, t->input);
        return;
    }
    rs_task_label(t, label, sizeof(label));
    rs_task_end(t, RS_OUTCOME_REFUSED,
                rs_value_line(400, "%s: no case for %s '%.60s' %s%.60s%s", label,
                              s->by == RS_SWITCH_HEADER ? "the header" : "the field",
                              s->by == RS_SWITCH_HEADER ? s->header : s->field,
                              value ? "with '" : "which is not there", value ? value : "",
                              value ? "'" : ""));
}

static void start_item(struct rs_task *t, const json_t *items)
{
    rs_auto(rs_freep) char *text =
        json_dumps(json_array_get(items, t->next), JSON_ENCODE_ANY | JSON_COMPACT);
    struct rs_value *v = rs_value_made(200, "application/json", text, text ? strlen(text) : 0);

    rs_task_new(t->run, t->step->kids[0], t, t->next++, v);
    rs_value_unref(v);
}

static const json_t *items_of(const struct rs_task *t, struct rs_error *err)
{
    const json_t *doc, *items;

    if (rs_value_json(t->input, &doc, err) < 0)
        return NULL;
    items = rs_json_at(doc, t->step->field);
    if (!json_is_array(items)) {
        rs_error_set(err, RS_INVALID, "expected a JSON array%s%.60s, found none",
                     *t->step->field ? " in the field " : "", t->step->field);
        return NULL;
    }
    if (json_array_size(items) > t->step->max_items) {
        rs_error_set(err, RS_INVALID, "expected at most %u elements (max_items), found %zu",
                     t->step->max_items, json_array_size(items));
        return NULL;
    }
    return items;
}

static void split(struct rs_task *t)
{
    struct rs_error err = {0};
    const json_t *items = items_of(t, &err);

    if (!items) {
        rs_task_blame(t, t->input, &err);
        return;
    }
    make_outputs(t, json_array_size(items));
    if (t->n_outputs == 0)
        rs_task_merge(t);
    while (t->next < t->n_outputs && t->open < t->step->parallelism)
        start_item(t, items);
}

void rs_task_execute(struct rs_task *t, int64_t now)
{
    const struct rs_step *s = t->step;

    t->state = RS_TASK_WORKING;
    switch (s->kind) {
    case RS_STEP_CALL:
        rs_task_call(t, now);
        break;
    case RS_STEP_SEQUENCE:
    case RS_STEP_FALLBACK:
        kid(t, t->next++, t->input);
        break;
    case RS_STEP_PARALLEL:
        start_all(t);
        break;
    case RS_STEP_SWITCH:
        choose(t);
        break;
    case RS_STEP_SPLIT:
        split(t);
        break;
    default:
        rs_task_end(t, s->status < 400 ? RS_OUTCOME_OK : RS_OUTCOME_REFUSED,
                    rs_value_made(s->status, s->type, s->text, strlen(s->text)));
        break;
    }
}

/* --- one below has ended ------------------------------------------------------------------------- */

static void pass_on(struct rs_task *t, struct rs_task *from)
{
    rs_task_end(t, from->outcome, rs_value_ref(from->output));
}

static void next_of_fallback(struct rs_task *t, struct rs_task *from)
{
    struct rs_flow *f = t->run->flow;

    if (!(t->step->on & 1u << from->outcome) || t->next == t->step->n_kids) {
        pass_on(t, from);
        return;
    }
    f->observe(t->step, RS_FLOW_FELL_BACK, from->outcome, 0, f->arg);
    kid(t, t->next++, t->input);
}

static void branch_ended(struct rs_task *t, struct rs_task *from, int64_t now)
{
    const struct rs_step *s = t->step;
    bool over;

    if (from->outcome == RS_OUTCOME_OK)
        t->outputs[from->place] = rs_value_ref(from->output);
    else
        t->failed++;
    if (s->n_kids - t->failed < s->need) {
        rs_task_abort_kids(t, now);
        pass_on(t, from);
        return;
    }
    /* `from` is still among the open ones. */
    over = t->open == 1 || (s->merge == RS_MERGE_FIRST && from->outcome == RS_OUTCOME_OK &&
                            s->n_kids - t->failed - (t->open - 1) >= s->need);
    if (over)
        rs_task_merge(t);
}

static void item_ended(struct rs_task *t, struct rs_task *from)
{
    struct rs_error err;

    if (from->outcome != RS_OUTCOME_OK) {
        pass_on(t, from);
        return;
    }
    t->outputs[from->place] = rs_value_ref(from->output);
    if (t->next < t->n_outputs)
        start_item(t, items_of(t, &err));
    else if (t->open == 1)
        rs_task_merge(t);
}

void rs_task_kid_ended(struct rs_task *t, struct rs_task *from, int64_t now)
{
    assert(t->state == RS_TASK_WORKING);
    switch (t->step->kind) {
    case RS_STEP_SEQUENCE:
        if (from->outcome == RS_OUTCOME_OK && t->next < t->step->n_kids)
            kid(t, t->next++, from->output);
        else
            pass_on(t, from);
        break;
    case RS_STEP_FALLBACK:
        next_of_fallback(t, from);
        break;
    case RS_STEP_PARALLEL:
        branch_ended(t, from, now);
        break;
    case RS_STEP_SPLIT:
        item_ended(t, from);
        break;
    default: /* the one that a switch chose */
        pass_on(t, from);
        break;
    }
}
