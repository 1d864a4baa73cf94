#include "core/graph/plan.h"

#include "core/base/alloc.h"
#include "core/base/json.h"
#include "core/base/text.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const kinds[RS_STEP_COUNT] = {"call",  "sequence", "parallel", "switch",
                                                 "split", "fallback", "answer"};
static const char *const merges[RS_MERGE_COUNT] = {"object", "array", "concat",
                                                   "vote",   "mean",  "first"};
static const char *const outcomes[RS_OUTCOME_COUNT] = {"ok", "error", "timeout", "overload",
                                                       "refused"};

const char *rs_step_kind_name(enum rs_step_kind k)
{
    return kinds[k];
}

const char *rs_merge_name(enum rs_merge m)
{
    return merges[m];
}

const char *rs_outcome_name(enum rs_outcome o)
{
    return outcomes[o];
}

struct compiler {
    struct rs_plan *plan;
    size_t cap;
    struct rs_error *err;
};

static const char *keep(struct compiler *c, const char *text)
{
    return text ? rs_arena_strndup(&c->plan->arena, text, strlen(text)) : NULL;
}

static void *room(struct compiler *c, size_t n, size_t size)
{
    return rs_arena_alloc(&c->plan->arena, (n + 1) * size);
}

static int find(const char *const *names, int count, const char *name)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0)
            return i;
    }
    return -1;
}

static int64_t seconds(const json_t *obj, const char *key)
{
    double s = rs_json_num(obj, key, 0);

    return s > 0 && s < 1e9 ? (int64_t)llround(s * 1e9) : 0;
}

static unsigned number(const json_t *obj, const char *key, int64_t def, int64_t max)
{
    int64_t n = rs_json_int(obj, key, def);

    return (unsigned)(n < 0 ? 0 : n > max ? max : n);
}

static int compile(struct compiler *c, const json_t *json, struct rs_step *parent, int depth,
                   struct rs_step **ret);

static int add_kid(struct compiler *c, struct rs_step *s, const json_t *json, int depth)
{
    struct rs_step *kid;

    if (compile(c, json, s, depth + 1, &kid) < 0)
        return -1;
    kid->at = s->n_kids;
    s->kids[s->n_kids++] = kid;
    return 0;
}

static int add_kids(struct compiler *c, struct rs_step *s, const json_t *list, int depth)
{
    size_t n = json_array_size(list);

    if (n == 0)
        return rs_error_set(c->err, RS_INVALID, "graph: a %s without steps", kinds[s->kind]);
    s->kids = room(c, n, sizeof(*s->kids));
    for (size_t i = 0; i < n; i++) {
        if (add_kid(c, s, json_array_get(list, i), depth) < 0)
            return -1;
    }
    return 0;
}

static void common(struct compiler *c, struct rs_step *s, const json_t *json)
{
    const json_t *cache = json_object_get(json, "cache");
    const json_t *list = json_object_get(cache, "headers");

    s->timeout = seconds(json, "timeout_s");
    s->cache.ttl = seconds(cache, "ttl_s");
    s->cache.max_bytes = (uint64_t)rs_json_int(cache, "max_bytes", 0);
    if (!s->cache.ttl || !s->cache.max_bytes) {
        s->cache.ttl = 0;
        return;
    }
    s->cache.index = c->plan->n_caches++;
    s->cache.headers = room(c, json_array_size(list), sizeof(*s->cache.headers));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        rs_auto(rs_freep) char *low = rs_strdup(name ? name : "");

        for (char *p = low; *p; p++) {
            if (*p >= 'A' && *p <= 'Z')
                *p = (char)(*p | 0x20);
        }
        s->cache.headers[s->cache.n_headers++] = keep(c, low);
    }
}

static int shadow(struct compiler *c, struct rs_step *s, const json_t *json, int depth)
{
    const json_t *conf = json_object_get(json, "shadow");

    if (!json_is_object(conf))
        return 0;
    s->shadow.share = rs_json_num(conf, "share", 1);
    s->shadow.limit = number(conf, "limit", 16, 100000);
    return compile(c, json_object_get(conf, "to"), s, depth + 1, &s->shadow.to);
}

static int call(struct compiler *c, struct rs_step *s, const json_t *json)
{
    const json_t *headers = json_object_get(json, "headers");
    const char *path = rs_json_str(json, "path", NULL), *query = path ? strchr(path, '?') : NULL;
    const char *name;
    json_t *value;

    s->deployment = keep(c, rs_json_str(json, "call", NULL));
    if (!s->deployment)
        return rs_error_set(c->err, RS_INVALID, "graph: a call without a deployment");
    if (path)
        s->path =
            rs_arena_strndup(&c->plan->arena, path, query ? (size_t)(query - path) : strlen(path));
    s->query = query ? keep(c, query + 1) : "";
    s->method = keep(c, rs_json_str(json, "method", NULL));
    s->retries = number(json, "retries", 0, 10);
    s->headers = room(c, 2 * json_object_size(headers), sizeof(*s->headers));
    json_object_foreach ((json_t *)(uintptr_t)headers, name, value) {
        s->headers[s->n_headers++] = keep(c, name);
        s->headers[s->n_headers++] = keep(c, json_is_string(value) ? json_string_value(value) : "");
    }
    return 0;
}

static int parallel(struct compiler *c, struct rs_step *s, const json_t *json, int depth)
{
    int merge = find(merges, RS_MERGE_COUNT, rs_json_str(json, "merge", "object"));
    unsigned n;

    if (merge < 0)
        return rs_error_set(c->err, RS_INVALID, "graph: an unknown merge");
    s->merge = (enum rs_merge)merge;
    s->field = keep(c, rs_json_str(json, "field", ""));
    if (add_kids(c, s, json_object_get(json, "parallel"), depth) < 0)
        return -1;
    n = s->n_kids;
    s->need = number(json, "need", 0, n);
    if (!s->need)
        s->need = s->merge == RS_MERGE_FIRST ? 1 : s->merge == RS_MERGE_VOTE ? n / 2 + 1 : n;
    return 0;
}

static int by_weight(struct compiler *c, struct rs_step *s, const json_t *list, int depth)
{
    size_t n = json_array_size(list);
    double sum = 0;

    s->kids = room(c, n, sizeof(*s->kids));
    s->weights = room(c, n, sizeof(*s->weights));
    for (size_t i = 0; i < n; i++) {
        const json_t *entry = json_array_get(list, i);

        s->weights[i] = rs_json_num(entry, "weight", 0);
        sum += s->weights[i];
        if (add_kid(c, s, json_object_get(entry, "to"), depth) < 0)
            return -1;
    }
    return sum > 0 && isfinite(sum) ? 0
                                    : rs_error_set(c->err, RS_INVALID, "graph: no weight above 0");
}

static int choice(struct compiler *c, struct rs_step *s, const json_t *json, int depth)
{
    const json_t *conf = json_object_get(json, "switch");
    const json_t *cases = json_object_get(conf, "cases"), *otherwise;
    const char *by_header = rs_json_str(conf, "header", NULL), *value;
    json_t *to;

    if (json_is_array(json_object_get(conf, "weight"))) {
        s->by = RS_SWITCH_WEIGHT;
        s->header = keep(c, rs_json_str(conf, "sticky", NULL));
        return by_weight(c, s, json_object_get(conf, "weight"), depth);
    }
    s->by = by_header ? RS_SWITCH_HEADER : RS_SWITCH_JSON;
    s->header = keep(c, by_header);
    s->field = keep(c, rs_json_str(conf, "json", ""));
    s->kids = room(c, json_object_size(cases) + 1, sizeof(*s->kids));
    s->values = room(c, json_object_size(cases) + 1, sizeof(*s->values));
    json_object_foreach ((json_t *)(uintptr_t)cases, value, to) {
        s->values[s->n_kids] = keep(c, value);
        if (add_kid(c, s, to, depth) < 0)
            return -1;
    }
    otherwise = json_object_get(conf, "default");
    s->has_default = json_is_object(otherwise);
    return s->has_default ? add_kid(c, s, otherwise, depth) : 0;
}

static int split(struct compiler *c, struct rs_step *s, const json_t *json, int depth)
{
    s->field = keep(c, rs_json_str(json, "items", ""));
    s->parallelism = number(json, "parallelism", 8, 1000);
    s->max_items = number(json, "max_items", 1000, 100000);
    s->kids = room(c, 1, sizeof(*s->kids));
    if (!s->parallelism)
        s->parallelism = 1;
    return add_kid(c, s, json_object_get(json, "split"), depth);
}

static int fallback(struct compiler *c, struct rs_step *s, const json_t *json, int depth)
{
    const json_t *on = json_object_get(json, "on");

    for (size_t i = 0; i < json_array_size(on); i++) {
        const char *name = json_string_value(json_array_get(on, i));
        int o = name ? find(outcomes, RS_OUTCOME_COUNT, name) : -1;

        if (o > RS_OUTCOME_OK)
            s->on |= 1u << o;
    }
    if (!s->on)
        s->on = 1u << RS_OUTCOME_ERROR | 1u << RS_OUTCOME_TIMEOUT | 1u << RS_OUTCOME_OVERLOAD;
    return add_kids(c, s, json_object_get(json, "fallback"), depth);
}

static int fixed(struct compiler *c, struct rs_step *s, const json_t *json)
{
    const json_t *conf = json_object_get(json, "answer");
    const json_t *body = json_object_get(conf, "json");

    s->status = number(conf, "status", 200, 599);
    if (s->status < 200)
        s->status = 200;
    if (body && !json_is_null(body)) {
        rs_auto(rs_freep) char *text =
            json_dumps(body, JSON_COMPACT | JSON_ENCODE_ANY | JSON_PRESERVE_ORDER);

        s->type = "application/json";
        s->text = keep(c, text);
    } else {
        s->type = "text/plain; charset=utf-8";
        s->text = keep(c, rs_json_str(conf, "text", ""));
    }
    return 0;
}

static int fill(struct compiler *c, struct rs_step *s, const json_t *json, int depth)
{
    switch (s->kind) {
    case RS_STEP_CALL:
        return call(c, s, json);
    case RS_STEP_SEQUENCE:
        return add_kids(c, s, json_object_get(json, "sequence"), depth);
    case RS_STEP_PARALLEL:
        return parallel(c, s, json, depth);
    case RS_STEP_SWITCH:
        return choice(c, s, json, depth);
    case RS_STEP_SPLIT:
        return split(c, s, json, depth);
    case RS_STEP_FALLBACK:
        return fallback(c, s, json, depth);
    default:
        return fixed(c, s, json);
    }
}

static int compile(struct compiler *c, const json_t *json, struct rs_step *parent, int depth,
                   struct rs_step **ret)
{
    struct rs_plan *p = c->plan;
    int kind = find(kinds, RS_STEP_COUNT, rs_json_str(json, "kind", ""));
    struct rs_step *s;

    if (kind < 0)
        return rs_error_set(c->err, RS_INVALID, "graph: a step of no known kind");
    if (p->count == RS_PLAN_STEPS_MAX || depth > RS_PLAN_DEPTH_MAX)
        return rs_error_set(c->err, RS_INVALID,
                            "graph: more than %d steps, or nested deeper than %d",
                            RS_PLAN_STEPS_MAX, RS_PLAN_DEPTH_MAX);
    s = rs_arena_alloc(&p->arena, sizeof(*s));
    p->steps = rs_grow(p->steps, &c->cap, p->count + 1, sizeof(struct rs_step *));
    p->steps[p->count] = s;
    s->index = p->count++;
    s->kind = (enum rs_step_kind)kind;
    s->name = keep(c, rs_json_str(json, "name", kinds[kind]));
    s->key = keep(c, rs_json_str(json, "key", s->name));
    s->parent = parent;
    common(c, s, json);
    if (fill(c, s, json, depth) < 0 || shadow(c, s, json, depth) < 0)
        return -1;
    *ret = s;
    return 0;
}

/* Whose answer is the graph's answer, so that it can be passed on while it comes. */
static void mark(struct rs_step *s, bool tail, bool is_shadow)
{
    tail = tail && !s->cache.ttl;
    s->tail = tail;
    s->is_shadow = is_shadow;
    for (unsigned i = 0; i < s->n_kids; i++) {
        bool last = s->kind == RS_STEP_SWITCH || s->kind == RS_STEP_FALLBACK ||
                    (s->kind == RS_STEP_SEQUENCE && i + 1 == s->n_kids);

        mark(s->kids[i], tail && last, is_shadow);
    }
    if (s->shadow.to)
        mark(s->shadow.to, false, true);
}

int rs_plan_new(struct rs_plan **ret, const json_t *json, struct rs_error *err)
{
    rs_auto(rs_plan_freep) struct rs_plan *p = rs_alloc(sizeof(*p));
    struct compiler c = {.plan = p, .err = err};
    const json_t *limits = json_object_get(json, "limits");
    struct rs_step *root = NULL;

    if (compile(&c, json_object_get(json, "root"), NULL, 0, &root) < 0)
        return -1;
    assert(root && root == p->steps[0]);
    mark(root, true, false);
    p->max_body = (uint64_t)rs_json_int(limits, "max_body", 16 << 20);
    p->max_ongoing = number(limits, "max_ongoing_requests", 10000, INT32_MAX);
    p->retry_budget = rs_json_num(limits, "retry_budget", 0.2);
    p->text = rs_json_dump(json);
    *ret = rs_steal(p);
    return 0;
}

void rs_plan_free(struct rs_plan *p)
{
    if (!p)
        return;
    rs_arena_fini(&p->arena);
    free(p->steps);
    free(p->text);
    free(p);
}
