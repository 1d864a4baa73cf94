/* Declared graphs: the rules that their steps must keep, and their full form.
 *
 * The full form is what core/graph and the nodes work with: names of steps are replaced by the steps,
 * names of deployments by calls, each step has a kind, a name of its own, and all defaults.
 */
#include "core/config/fields.h"

#include "core/base/alloc.h"
#include "core/base/map.h"
#include "core/base/nearest.h"

#include <stdlib.h>
#include <string.h>

enum { DEPTH_MAX = 16, STEPS_MAX = 256 };

static const char *const kinds[] = {"call",  "sequence", "parallel", "switch",
                                    "split", "fallback", "answer"};

/* Options that only one kind of step has. */
static const struct {
    const char *key, *kind;
} options[] = {
    {"path", "call"},         {"method", "call"},     {"headers", "call"},  {"retries", "call"},
    {"merge", "parallel"},    {"field", "parallel"},  {"need", "parallel"}, {"items", "split"},
    {"parallelism", "split"}, {"max_items", "split"}, {"on", "fallback"},
};

static const char *const only_top[] = {"steps", "max_body", "max_ongoing_requests", "retry_budget"};

static const json_t *get(const json_t *obj, const char *key)
{
    const json_t *v = json_object_get(obj, key);

    return json_is_null(v) ? NULL : v;
}

/* NULL: none, or more than one. */
static const char *kind_of(const json_t *step)
{
    const char *found = NULL;

    for (size_t i = 0; i < RS_COUNT(kinds); i++) {
        if (!get(step, kinds[i]))
            continue;
        if (found)
            return NULL;
        found = kinds[i];
    }
    return found;
}

/* --- rules --------------------------------------------------------------------------------------- */

struct rules {
    struct rs_walk *w;
    const json_t *steps, *deployments;
    const struct rs_node *steps_node;
    bool known;          /* all deployments are in the file */
    struct rs_map names; /* given by the user */
    struct rs_map used;  /* of `steps` */
    const char *path[DEPTH_MAX + 2];
    size_t depth, count;
};

static void RS_PRINTF(4, 5)
    fail_at(struct rs_walk *w, const struct rs_node *node, const char *key, const char *fmt, ...)
{
    const struct rs_node_entry *e =
        key && node->kind == RS_NODE_MAP ? rs_node_get(node, key) : NULL;
    size_t back = rs_buf_len(&w->path);
    rs_auto(rs_freep) char *text = NULL;
    va_list args;

    if (key)
        back = rs_walk_key(w, key);
    va_start(args, fmt);
    text = rs_vasprintf(fmt, args);
    va_end(args);
    rs_walk_error(w, e ? e->line : node->line, e ? e->column : node->column, "%s", text);
    rs_walk_back(w, back);
}

static bool has_deployment(const struct rules *g, const char *name)
{
    for (size_t i = 0; i < json_array_size(g->deployments); i++) {
        if (strcmp(rs_json_str(json_array_get(g->deployments, i), "name", ""), name) == 0)
            return true;
    }
    return false;
}

/* `steps_too`: a step of that name would do as well. */
static void unknown_name(struct rules *g, const struct rs_node *node, const char *key,
                         const char *name, bool steps_too)
{
    struct rs_nearest near = rs_nearest_to(name);
    const char *step;
    json_t *v;

    for (size_t i = 0; i < json_array_size(g->deployments); i++)
        rs_nearest_offer(&near, rs_json_str(json_array_get(g->deployments, i), "name", ""));
    json_object_foreach ((json_t *)(uintptr_t)g->steps, step, v) {
        if (steps_too)
            rs_nearest_offer(&near, step);
    }
    fail_at(g->w, node, key, "no deployment%s is named \"%.60s\"%s%s%s",
            steps_too ? " or step" : "", name, near.best ? "; did you mean \"" : "",
            near.best ? near.best : "", near.best ? "\"?" : "");
}

static void check_name(struct rules *g, const char *name, const struct rs_node *node,
                       const char *key)
{
    if (get(g->steps, name))
        rs_map_put(&g->used, name, g);
    else if (g->known && !has_deployment(g, name))
        unknown_name(g, node, key, name, true);
}

typedef void visit(struct rules *g, const json_t *step, const struct rs_node *node);

static void one(struct rules *g, const json_t *step, const struct rs_node *map, const char *key,
                visit *fn)
{
    const json_t *v = get(step, key);
    const struct rs_node_entry *e = v ? rs_node_get(map, key) : NULL;
    size_t back;

    if (!e || (!json_is_string(v) && !json_is_object(v)))
        return;
    back = rs_walk_key(g->w, key);
    fn(g, v, e->value);
    rs_walk_back(g->w, back);
}

static void list(struct rules *g, const json_t *step, const struct rs_node *map, const char *key,
                 visit *fn)
{
    const json_t *v = get(step, key);
    const struct rs_node_entry *e = v ? rs_node_get(map, key) : NULL;
    size_t back = rs_walk_key(g->w, key);

    for (size_t i = 0; e && i < json_array_size(v) && i < e->value->count; i++) {
        const json_t *item = json_array_get(v, i);
        size_t here = rs_walk_index(g->w, i);

        if (json_is_string(item) || json_is_object(item))
            fn(g, item, e->value->items[i]);
        rs_walk_back(g->w, here);
    }
    rs_walk_back(g->w, back);
}

static void mapping(struct rules *g, const json_t *step, const struct rs_node *map, const char *key,
                    visit *fn)
{
    const json_t *v = get(step, key);
    const struct rs_node_entry *e = v ? rs_node_get(map, key) : NULL;
    size_t back = rs_walk_key(g->w, key);

    for (size_t i = 0; e && e->value->kind == RS_NODE_MAP && i < e->value->count; i++) {
        const json_t *item = get(v, e->value->entries[i].key);
        size_t here = rs_walk_key(g->w, e->value->entries[i].key);

        if (json_is_string(item) || json_is_object(item))
            fn(g, item, e->value->entries[i].value);
        rs_walk_back(g->w, here);
    }
    rs_walk_back(g->w, back);
}

/* The sub-mapping of a step, with the walk standing at it. NULL: there is none. */
static const struct rs_node *enter(struct rules *g, const json_t *step, const struct rs_node *map,
                                   const char *key, const json_t **ret, size_t *back)
{
    const struct rs_node_entry *e = rs_node_get(map, key);

    *ret = get(step, key);
    if (!json_is_object(*ret) || !e || e->value->kind != RS_NODE_MAP)
        return NULL;
    *back = rs_walk_key(g->w, key);
    return e->value;
}

/* All steps right below one, but not those that are named. */
static void children(struct rules *g, const json_t *step, const struct rs_node *map, visit *fn)
{
    const struct rs_node *inner;
    const json_t *sub;
    size_t back;

    list(g, step, map, "sequence", fn);
    list(g, step, map, "parallel", fn);
    list(g, step, map, "fallback", fn);
    one(g, step, map, "split", fn);
    inner = enter(g, step, map, "switch", &sub, &back);
    if (inner) {
        const json_t *weight = get(sub, "weight");
        const struct rs_node_entry *e = weight ? rs_node_get(inner, "weight") : NULL;

        for (size_t i = 0; e && e->value->kind == RS_NODE_MAP && i < e->value->count; i++) {
            const struct rs_node_entry *w = &e->value->entries[i];
            rs_auto(rs_json_decrefp) json_t *name = json_string(w->key);
            struct rs_node at = {.kind = RS_NODE_TEXT, .line = w->line, .column = w->column};
            size_t here = rs_walk_key(g->w, "weight");

            fn(g, name, &at);
            rs_walk_back(g->w, here);
        }
        mapping(g, sub, inner, "cases", fn);
        one(g, sub, inner, "default", fn);
        rs_walk_back(g->w, back);
    }
    inner = enter(g, step, map, "shadow", &sub, &back);
    if (inner) {
        one(g, sub, inner, "to", fn);
        rs_walk_back(g->w, back);
    }
}

static void check_switch(struct rules *g, const json_t *step, const struct rs_node *map)
{
    size_t back;
    int ways;
    const json_t *s, *weight, *cases;
    const struct rs_node *at = enter(g, step, map, "switch", &s, &back);
    const char *name;
    json_t *v;

    if (!at)
        return;
    weight = get(s, "weight");
    cases = get(s, "cases");
    ways = (get(s, "header") != NULL) + (get(s, "json") != NULL) + (weight != NULL);
    if (ways != 1)
        fail_at(g->w, at, NULL, "expected one of \"header\", \"json\" and \"weight\", got %s",
                ways ? "several" : "none");
    else if (weight && (cases || get(s, "default")))
        fail_at(g->w, at, cases ? "cases" : "default", "is not for a switch by weight");
    else if (weight && json_object_size(weight) == 0)
        fail_at(g->w, at, "weight", "expected at least one step, got none");
    else if (!weight && json_object_size(cases) == 0)
        fail_at(g->w, at, "cases", "expected at least one case, got none");
    if (!weight && get(s, "sticky"))
        fail_at(g->w, at, "sticky", "is for a switch by weight");
    json_object_foreach ((json_t *)(uintptr_t)weight, name, v) {
        const struct rs_node_entry *e = rs_node_get(at, "weight");
        size_t here = rs_walk_key(g->w, "weight");

        if (e && !(json_number_value(v) > 0))
            fail_at(g->w, e->value, name, "expected a weight above 0, got 0");
        rs_walk_back(g->w, here);
    }
    rs_walk_back(g->w, back);
}

static const char *branch_name(const json_t *step)
{
    const char *kind = json_is_object(step) ? kind_of(step) : NULL;

    if (json_is_string(step))
        return json_string_value(step);
    return rs_json_str(step, "name",
                       kind && strcmp(kind, "call") == 0 ? rs_json_str(step, "call", NULL) : kind);
}

/* Branches whose answers are told apart by their names. */
static void check_branches(struct rules *g, const json_t *step, const struct rs_node *map)
{
    const json_t *branches = get(step, "parallel");
    const struct rs_node *nodes = rs_node_get(map, "parallel")->value;
    struct rs_map seen = {0};
    size_t back = rs_walk_key(g->w, "parallel");

    for (size_t i = 0; i < json_array_size(branches) && i < nodes->count; i++) {
        const char *name = branch_name(json_array_get(branches, i));
        size_t here = rs_walk_index(g->w, i);

        if (name && rs_map_put(&seen, name, g))
            fail_at(g->w, nodes->items[i], NULL,
                    "two branches are named \"%.60s\"; give one a name of its own", name);
        rs_walk_back(g->w, here);
    }
    rs_walk_back(g->w, back);
    rs_map_fini(&seen);
}

static void check_parallel(struct rules *g, const json_t *step, const struct rs_node *map)
{
    const char *merge = rs_json_str(step, "merge", "object");
    size_t n = json_array_size(get(step, "parallel"));
    bool reads = strcmp(merge, "vote") == 0 || strcmp(merge, "mean") == 0;

    if (n == 0)
        fail_at(g->w, map, "parallel", "expected at least one step, got none");
    if (rs_json_int(step, "need", 1) > (int64_t)n && n)
        fail_at(g->w, map, "need", "expected at most %zu, the number of steps, got %lld", n,
                (long long)rs_json_int(step, "need", 1));
    if (get(step, "field") && !reads)
        fail_at(g->w, map, "field", "is for merge: vote and merge: mean");
    if (strcmp(merge, "mean") == 0 && !get(step, "field"))
        fail_at(g->w, map, "field", "Field required for merge: mean");
    if (strcmp(merge, "object") == 0)
        check_branches(g, step, map);
}

static void check_kind(struct rules *g, const json_t *step, const struct rs_node *map,
                       const char *kind)
{
    if (strcmp(kind, "call") == 0) {
        const char *name = rs_json_str(step, "call", "");

        if (g->known && !has_deployment(g, name))
            unknown_name(g, map, "call", name, false);
    } else if (strcmp(kind, "parallel") == 0) {
        check_parallel(g, step, map);
    } else if (strcmp(kind, "switch") == 0) {
        check_switch(g, step, map);
    } else if (strcmp(kind, "sequence") == 0 && json_array_size(get(step, kind)) == 0) {
        fail_at(g->w, map, kind, "expected at least one step, got none");
    } else if (strcmp(kind, "fallback") == 0 && json_array_size(get(step, kind)) < 2) {
        fail_at(g->w, map, kind, "expected at least two steps, got %zu",
                json_array_size(get(step, kind)));
    } else if (strcmp(kind, "answer") == 0 && get(get(step, kind), "text") &&
               get(get(step, kind), "json")) {
        fail_at(g->w, map, kind, "expected text or json, got both");
    }
}

static void no_kind(struct rules *g, const json_t *step, const struct rs_node *map)
{
    rs_auto(rs_buf_fini) struct rs_buf got = {0};

    for (size_t i = 0; i < RS_COUNT(kinds); i++) {
        if (rs_node_get(map, kinds[i]) && !get(step, kinds[i]))
            return; /* it is there, and was refused */
        if (get(step, kinds[i]))
            rs_buf_printf(&got, "%s%s", rs_buf_len(&got) ? " and " : "", kinds[i]);
    }
    fail_at(g->w, map, NULL,
            "expected one of call, sequence, parallel, switch, split, fallback and answer, got %s",
            rs_buf_len(&got) ? rs_buf_text(&got) : "none");
}

static void check_step(struct rules *g, const json_t *step, const struct rs_node *node)
{
    const char *kind, *name;

    if (json_is_string(step)) {
        check_name(g, json_string_value(step), node, NULL);
        return;
    }
    kind = kind_of(step);
    if (!kind)
        no_kind(g, step, node);
    else
        check_kind(g, step, node, kind);
    for (size_t i = 0; kind && i < RS_COUNT(options); i++) {
        if (get(step, options[i].key) && strcmp(options[i].kind, kind) != 0)
            fail_at(g->w, node, options[i].key, "is for %s; this step is a %s", options[i].kind,
                    kind);
    }
    for (size_t i = 0; g->depth && i < RS_COUNT(only_top); i++) {
        if (get(step, only_top[i]))
            fail_at(g->w, node, only_top[i], "stands at the top of the graph only");
    }
    name = rs_json_str(step, "name", NULL);
    if (name && rs_map_put(&g->names, name, g))
        fail_at(g->w, node, "name", "two steps are named \"%.60s\"", name);
    g->depth++;
    children(g, step, node, check_step);
    g->depth--;
}

/* Follows the names: circles, depth, number. Stops at the first problem. */
static void measure(struct rules *g, const json_t *step, const struct rs_node *node)
{
    const char *name = json_is_string(step) ? json_string_value(step) : NULL;
    const json_t *named = name ? get(g->steps, name) : NULL;
    const struct rs_node_entry *e =
        named && g->steps_node ? rs_node_get(g->steps_node, name) : NULL;
    rs_auto(rs_buf_fini) struct rs_buf circle = {0};

    if (g->count > STEPS_MAX)
        return; /* it was said */
    for (size_t i = 0; e && i < g->depth; i++) {
        if (!rs_buf_len(&circle) && (!g->path[i] || strcmp(g->path[i], name) != 0))
            continue;
        if (g->path[i])
            rs_buf_printf(&circle, "%s -> ", g->path[i]);
    }
    if (rs_buf_len(&circle)) {
        fail_at(g->w, node, NULL, "steps use each other in a circle: %s%.60s", rs_buf_text(&circle),
                name);
        g->count = STEPS_MAX + 1;
        return;
    }
    if (g->depth > DEPTH_MAX) {
        fail_at(g->w, node, NULL, "steps are nested deeper than %d", DEPTH_MAX);
        g->count = STEPS_MAX + 1;
        return;
    }
    g->path[g->depth] = name;
    if (e && json_is_string(named)) {
        g->depth++;
        measure(g, named, e->value);
        g->depth--;
        return;
    }
    if (++g->count > STEPS_MAX) {
        fail_at(g->w, node, NULL, "the graph has more than %d steps", STEPS_MAX);
        return;
    }
    if (name && !e)
        return;
    g->depth++;
    children(g, e ? named : step, e ? e->value : node, measure);
    g->depth--;
}

static void check_steps(struct rules *g, const json_t *graph, const struct rs_node *node)
{
    const struct rs_node_entry *e = rs_node_get(node, "steps");
    size_t back = rs_walk_key(g->w, "steps");

    for (size_t i = 0; e && g->steps_node && i < g->steps_node->count; i++) {
        const struct rs_node_entry *s = &g->steps_node->entries[i];

        if (has_deployment(g, s->key))
            fail_at(g->w, g->steps_node, s->key, "a deployment has this name too");
    }
    rs_walk_back(g->w, back);
    g->depth++;
    mapping(g, graph, node, "steps", check_step);
    g->depth--;
    back = rs_walk_key(g->w, "steps");
    for (size_t i = 0; e && g->steps_node && i < g->steps_node->count; i++) {
        const struct rs_node_entry *s = &g->steps_node->entries[i];
        size_t here = rs_walk_key(g->w, s->key);

        if (!rs_map_get(&g->used, s->key))
            rs_walk_warn(g->w, s->line, s->column, "no step uses it");
        rs_walk_back(g->w, here);
    }
    rs_walk_back(g->w, back);
}

void rs_rules_graph(struct rs_walk *w, const json_t *app, const struct rs_node *map)
{
    const json_t *ext = get(app, "rserve"), *graph = get(ext, "graph");
    const struct rs_node_entry *e = rs_node_get(map, "rserve"), *at, *steps;
    struct rules g = {.w = w,
                      .steps = get(graph, "steps"),
                      .deployments = get(app, "deployments"),
                      .known = !rs_node_get(map, "import_path")};
    size_t errors = w->diags->errors, outer, back;

    at = e && e->value->kind == RS_NODE_MAP ? rs_node_get(e->value, "graph") : NULL;
    if (!graph || !at)
        return;
    outer = rs_walk_key(w, "rserve");
    if (get(ext, "ingress"))
        fail_at(w, e->value, "ingress", "a graph takes the requests; leave this out");
    back = rs_walk_key(w, "graph");
    steps = at->value->kind == RS_NODE_MAP ? rs_node_get(at->value, "steps") : NULL;
    if (steps && steps->value->kind == RS_NODE_MAP)
        g.steps_node = steps->value;
    check_step(&g, graph, at->value);
    if (at->value->kind == RS_NODE_MAP)
        check_steps(&g, graph, at->value);
    if (w->diags->errors == errors)
        measure(&g, graph, at->value);
    rs_walk_back(w, back);
    rs_walk_back(w, outer);
    rs_map_fini(&g.names);
    rs_map_fini(&g.used);
}

/* --- the full form ------------------------------------------------------------------------------- */

struct expansion {
    const json_t *steps;
    struct rs_map names; /* in use */
};

static json_t *expand(struct expansion *x, const json_t *step, const char *called);

static json_t *expand_list(struct expansion *x, const json_t *from)
{
    json_t *to = json_array();

    for (size_t i = 0; i < json_array_size(from); i++)
        json_array_append_new(to, expand(x, json_array_get(from, i), NULL));
    return to;
}

static json_t *expand_switch(struct expansion *x, const json_t *from)
{
    json_t *to = json_copy((json_t *)(uintptr_t)from), *cases, *shares, *v;
    const char *key;

    if (get(from, "weight")) {
        shares = json_array();
        json_object_foreach (json_object_get(from, "weight"), key, v) {
            rs_auto(rs_json_decrefp) json_t *name = json_string_nocheck(key);

            json_array_append_new(shares, json_pack("{s:f, s:o}", "weight", json_number_value(v),
                                                    "to", expand(x, name, NULL)));
        }
        json_object_set_new(to, "weight", shares);
        return to;
    }
    cases = json_object();
    json_object_foreach (json_object_get(from, "cases"), key, v)
        json_object_set_new_nocheck(cases, key, expand(x, v, NULL));
    json_object_set_new(to, "cases", cases);
    if (get(from, "default"))
        json_object_set_new(to, "default", expand(x, get(from, "default"), NULL));
    return to;
}

/* A name that no other step has: "rank", "rank-2", ... */
static char *free_name(struct expansion *x, const char *wanted)
{
    char *name = rs_strdup(wanted);

    for (unsigned n = 2; rs_map_get(&x->names, name); n++) {
        free(name);
        name = rs_asprintf("%s-%u", wanted, n);
    }
    rs_map_put(&x->names, name, x);
    return name;
}

static json_t *expand_mapping(struct expansion *x, const json_t *step, const char *called)
{
    json_t *out = rs_complete(&rs_object_step, step);
    const char *kind = kind_of(step), *key;
    const json_t *shadow = get(step, "shadow");
    rs_auto(rs_freep) char *name = NULL;

    if (!kind)
        kind = "answer"; /* rs_rules_graph refused it */
    key = rs_json_str(step, "name",
                      called                      ? called
                      : strcmp(kind, "call") == 0 ? rs_json_str(step, "call", kind)
                                                  : kind);
    name = free_name(x, key);
    json_object_set_new(out, "kind", json_string(kind));
    json_object_set_new(out, "name", json_string_nocheck(name));
    json_object_set_new(out, "key", json_string_nocheck(key));
    for (size_t i = 0; i < RS_COUNT(only_top); i++)
        json_object_del(out, only_top[i]);
    if (strcmp(kind, "sequence") == 0 || strcmp(kind, "parallel") == 0 ||
        strcmp(kind, "fallback") == 0)
        json_object_set_new(out, kind, expand_list(x, get(step, kind)));
    else if (strcmp(kind, "switch") == 0)
        json_object_set_new(out, kind, expand_switch(x, get(out, kind)));
    else if (strcmp(kind, "split") == 0)
        json_object_set_new(out, kind, expand(x, get(step, kind), NULL));
    if (shadow)
        json_object_set_new(json_object_get(out, "shadow"), "to",
                            expand(x, get(shadow, "to"), NULL));
    return out;
}

static json_t *expand(struct expansion *x, const json_t *step, const char *called)
{
    const char *name = json_string_value(step);
    rs_auto(rs_json_decrefp) json_t *call = NULL;

    if (name && get(x->steps, name))
        return expand(x, get(x->steps, name), called ? called : name);
    if (name) {
        call = json_pack("{s:s}", "call", name);
        return expand_mapping(x, call, called);
    }
    return expand_mapping(x, step, called);
}

static void drop_nulls(json_t *v)
{
    const char *key;
    json_t *item;
    void *tmp;

    for (size_t i = 0; i < json_array_size(v); i++)
        drop_nulls(json_array_get(v, i));
    json_object_foreach_safe (v, tmp, key, item) {
        if (json_is_null(item))
            json_object_del(v, key);
        else if (strcmp(key, "answer") != 0) /* there null may be meant */
            drop_nulls(item);
    }
}

json_t *rs_graph_conf_expand(const json_t *graph)
{
    struct expansion x = {.steps = get(graph, "steps")};
    rs_auto(rs_json_decrefp) json_t *limits =
        json_is_object(graph) ? json_object() : rs_complete(&rs_object_step, NULL);
    rs_auto(rs_json_decrefp) json_t *top = rs_complete(&rs_object_step, graph);
    json_t *root = expand(&x, graph, NULL);

    for (size_t i = 1; i < RS_COUNT(only_top); i++)
        json_object_set(limits, only_top[i], json_object_get(top, only_top[i]));
    drop_nulls(root);
    rs_map_fini(&x.names);
    return json_pack("{s:o, s:O}", "root", root, "limits", limits);
}
