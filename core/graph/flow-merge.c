/* What several stages gave, as one. */
#include "core/graph/flow-internal.h"

#include "core/base/alloc.h"
#include "core/base/json.h"
#include "core/base/text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char is_json[] = "application/json";

void rs_task_blame(struct rs_task *t, const struct rs_value *v, const struct rs_error *err)
{
    char label[192];

    rs_task_label(t, label, sizeof(label));
    if (!v->status)
        rs_task_end(t, RS_OUTCOME_REFUSED,
                    rs_value_line(400, "%s: the request's body: %s", label, err->msg));
    else if (v->from)
        rs_task_end(
            t, RS_OUTCOME_ERROR,
            rs_value_line(502, "%s: the answer of stage '%.60s': %s", label, v->from, err->msg));
    else
        rs_task_end(t, RS_OUTCOME_ERROR, rs_value_line(502, "%s: %s", label, err->msg));
}

static const char *key_of(const struct rs_task *t, size_t i)
{
    return t->step->kind == RS_STEP_PARALLEL ? t->step->kids[i]->key : "";
}

/* {"name": output, ...} or [output, ...], of those that there are. */
static void collection(struct rs_task *t, bool object)
{
    rs_auto(rs_buf_fini) struct rs_buf out = {0};
    struct rs_error err = {0};
    bool first = true;

    rs_buf_puts(&out, object ? "{" : "[");
    for (size_t i = 0; i < t->n_outputs; i++) {
        if (!t->outputs[i])
            continue;
        if (!first)
            rs_buf_puts(&out, ",");
        first = false;
        if (object) {
            rs_value_put_string(&out, key_of(t, i), strlen(key_of(t, i)));
            rs_buf_puts(&out, ":");
        }
        if (rs_value_put_json(t->outputs[i], &out, &err) < 0) {
            rs_task_blame(t, t->outputs[i], &err);
            return;
        }
        if (rs_buf_len(&out) > t->run->flow->plan->max_body) {
            rs_error_set(&err, RS_INVALID, "all of it together is longer than max_body, %llu bytes",
                         (unsigned long long)t->run->flow->plan->max_body);
            rs_task_blame(t, t->outputs[i], &err);
            return;
        }
    }
    rs_buf_puts(&out, object ? "}" : "]");
    rs_task_end(t, RS_OUTCOME_OK, rs_value_made(200, is_json, rs_buf_head(&out), rs_buf_len(&out)));
}

static void concatenation(struct rs_task *t)
{
    const char *type = NULL, *data;
    rs_auto(rs_buf_fini) struct rs_buf out = {0};
    struct rs_error err = {0};

    for (size_t i = 0; i < t->n_outputs; i++) {
        struct rs_value *v = t->outputs[i];

        if (!v)
            continue;
        if (!type)
            type = rs_value_header(v, "content-type");
        if (rs_value_bytes(v, &data, &err) < 0 ||
            (rs_buf_len(&out) + v->len > t->run->flow->plan->max_body &&
             rs_error_set(&err, RS_INVALID,
                          "all of it together is longer than max_body, %llu bytes",
                          (unsigned long long)t->run->flow->plan->max_body) < 0)) {
            rs_task_blame(t, v, &err);
            return;
        }
        if (v->len)
            rs_buf_append(&out, data, (size_t)v->len);
    }
    rs_task_end(t, RS_OUTCOME_OK, rs_value_made(200, type, rs_buf_head(&out), rs_buf_len(&out)));
}

/* What a field of an output holds, as JSON text in `out`; -1: it is not there. */
static int read_field(const struct rs_task *t, struct rs_value *v, const json_t **ret,
                      struct rs_error *err)
{
    const char *field = t->step->field;
    const json_t *doc;

    if (rs_value_json(v, &doc, err) < 0)
        return -1;
    *ret = rs_json_at(doc, field);
    return *ret ? 0 : rs_error_set(err, RS_INVALID, "expected the field %.60s, found none", field);
}

/* "label" of "result.label": under which name the outcome stands. */
static const char *last_part(const char *field)
{
    const char *dot = strrchr(field, '.');

    return *field == '\0' ? "value" : dot ? dot + 1 : field;
}

static char *ballot(struct rs_task *t, struct rs_value *v, struct rs_error *err)
{
    rs_auto(rs_buf_fini) struct rs_buf text = {0};
    const json_t *value;

    if (!*t->step->field) {
        rs_auto(rs_json_decrefp) json_t *whole = NULL;

        if (rs_value_put_json(v, &text, err) < 0)
            return NULL;
        whole = json_loadb(rs_buf_head(&text), rs_buf_len(&text), JSON_DECODE_ANY | JSON_ALLOW_NUL,
                           NULL);
        return json_dumps(whole, JSON_ENCODE_ANY | JSON_COMPACT | JSON_SORT_KEYS);
    }
    if (read_field(t, v, &value, err) < 0)
        return NULL;
    return json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_SORT_KEYS);
}

/* The value that most have; of equals the one that stands first. */
static void vote(struct rs_task *t)
{
    rs_auto(rs_freep) char **ballots = rs_alloc((t->n_outputs + 1) * sizeof(char *));
    size_t best = 0, votes = 0, of = 0;
    struct rs_error err = {0};
    bool failed = false;

    for (size_t i = 0; i < t->n_outputs && !failed; i++) {
        if (!t->outputs[i])
            continue;
        of++;
        ballots[i] = ballot(t, t->outputs[i], &err);
        if (!ballots[i]) {
            rs_task_blame(t, t->outputs[i], &err);
            failed = true;
        }
    }
    for (size_t i = 0; i < t->n_outputs && !failed; i++) {
        size_t n = 0;

        for (size_t k = 0; ballots[i] && k < t->n_outputs; k++)
            n += ballots[k] && strcmp(ballots[i], ballots[k]) == 0;
        if (n > votes) {
            votes = n;
            best = i;
        }
    }
    if (!failed) {
        rs_auto(rs_buf_fini) struct rs_buf out = {0};

        rs_buf_puts(&out, "{");
        rs_value_put_string(&out, last_part(t->step->field), strlen(last_part(t->step->field)));
        rs_buf_printf(&out, ":%s,\"votes\":%zu,\"of\":%zu}", ballots[best], votes, of);
        rs_task_end(t, RS_OUTCOME_OK,
                    rs_value_made(200, is_json, rs_buf_head(&out), rs_buf_len(&out)));
    }
    for (size_t i = 0; i < t->n_outputs; i++)
        free(ballots[i]);
}

static void mean(struct rs_task *t)
{
    rs_auto(rs_buf_fini) struct rs_buf out = {0};
    char number[RS_DOUBLE_TEXT];
    struct rs_error err = {0};
    const json_t *value;
    double sum = 0;
    size_t of = 0;

    for (size_t i = 0; i < t->n_outputs; i++) {
        if (!t->outputs[i])
            continue;
        if (read_field(t, t->outputs[i], &value, &err) < 0 ||
            (!json_is_number(value) &&
             rs_error_set(&err, RS_INVALID, "expected a number in the field %.60s, found none",
                          t->step->field) < 0)) {
            rs_task_blame(t, t->outputs[i], &err);
            return;
        }
        sum += json_number_value(value);
        of++;
    }
    sum /= (double)of;
    if (!isfinite(sum)) {
        rs_error_set(&err, RS_INVALID, "the mean of the field %.60s is no number", t->step->field);
        rs_task_end(t, RS_OUTCOME_ERROR, rs_value_line(502, "%s", err.msg));
        return;
    }
    rs_buf_puts(&out, "{");
    rs_value_put_string(&out, last_part(t->step->field), strlen(last_part(t->step->field)));
    rs_buf_printf(&out, ":%s,\"of\":%zu}", rs_text_double(sum, number), of);
    rs_task_end(t, RS_OUTCOME_OK, rs_value_made(200, is_json, rs_buf_head(&out), rs_buf_len(&out)));
}

void rs_task_merge(struct rs_task *t)
{
    size_t i = 0;

    if (t->step->kind == RS_STEP_SPLIT) {
        collection(t, false);
        return;
    }
    switch (t->step->merge) {
    case RS_MERGE_OBJECT:
    case RS_MERGE_ARRAY:
        collection(t, t->step->merge == RS_MERGE_OBJECT);
        break;
    case RS_MERGE_CONCAT:
        concatenation(t);
        break;
    case RS_MERGE_VOTE:
        vote(t);
        break;
    case RS_MERGE_MEAN:
        mean(t);
        break;
    default:
        while (!t->outputs[i])
            i++;
        rs_task_end(t, RS_OUTCOME_OK, rs_value_ref(t->outputs[i]));
        break;
    }
}
