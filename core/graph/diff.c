/* What changed between two graphs of an application. */
#include "core/graph/graph.h"

#include "core/base/alloc.h"

#include <stdlib.h>
#include <string.h>

static void add(struct rs_graph_diff *d, enum rs_graph_change_kind kind, const char *name,
                char *fields)
{
    d->items = rs_grow(d->items, &d->cap, d->count + 1, sizeof(*d->items));
    d->items[d->count++] =
        (struct rs_graph_change){.kind = kind, .name = rs_strdup(name), .fields = fields};
}

static void field(struct rs_buf *out, const char *name)
{
    rs_buf_printf(out, "%s%s", rs_buf_len(out) ? ", " : "", name);
}

static bool same_calls(const struct rs_graph *a, const struct rs_graph_node *na,
                       const struct rs_graph *b, const struct rs_graph_node *nb)
{
    if (na->call_count != nb->call_count)
        return false;
    for (size_t i = 0; i < na->call_count; i++) {
        if (strcmp(a->nodes[na->calls[i]].name, b->nodes[nb->calls[i]].name) != 0)
            return false;
    }
    return true;
}

/* Names of options that only one has, or that differ. */
static void options(struct rs_buf *out, const json_t *a, const json_t *b)
{
    const char *key;
    json_t *v;

    json_object_foreach ((json_t *)(uintptr_t)b, key, v) {
        if (!json_equal(json_object_get(a, key), v))
            field(out, key);
    }
    json_object_foreach ((json_t *)(uintptr_t)a, key, v) {
        if (!json_object_get(b, key))
            field(out, key);
    }
}

static bool same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

/* NULL: nothing changed. */
static char *changed(const struct rs_graph *a, const struct rs_graph_node *na,
                     const struct rs_graph *b, const struct rs_graph_node *nb)
{
    struct rs_buf out = {0};

    if (na->kind != nb->kind || na->from_file != nb->from_file)
        field(&out, "kind");
    if (!same_text(na->object, nb->object))
        field(&out, "object");
    if (na->asgi != nb->asgi || na->function != nb->function)
        field(&out, "callable");
    if (!same_calls(a, na, b, nb))
        field(&out, "calls");
    if ((na == &a->nodes[a->ingress]) != (nb == &b->nodes[b->ingress]))
        field(&out, "ingress");
    options(&out, na->options, nb->options);
    if (rs_buf_len(&out) == 0)
        return NULL;
    return rs_buf_steal(&out);
}

static const char *plan_text(const struct rs_graph *g)
{
    return g && g->plan ? g->plan->text : "";
}

void rs_graph_diff(const struct rs_graph *a, const struct rs_graph *b, struct rs_graph_diff *ret)
{
    *ret = (struct rs_graph_diff){0};
    for (size_t i = 0; b && i < b->count; i++) {
        const struct rs_graph_node *nb = &b->nodes[i];
        const struct rs_graph_node *na = a ? rs_graph_find(a, nb->name) : NULL;
        char *fields = na ? changed(a, na, b, nb) : NULL;

        if (!na)
            add(ret, RS_GRAPH_ADDED, nb->name, NULL);
        else if (fields)
            add(ret, RS_GRAPH_CHANGED, nb->name, fields);
    }
    for (size_t i = 0; a && i < a->count; i++) {
        if (!b || !rs_graph_find(b, a->nodes[i].name))
            add(ret, RS_GRAPH_REMOVED, a->nodes[i].name, NULL);
    }
    if (strcmp(plan_text(a), plan_text(b)) != 0)
        add(ret,
            !*plan_text(a)  ? RS_GRAPH_ADDED
            : *plan_text(b) ? RS_GRAPH_CHANGED
                            : RS_GRAPH_REMOVED,
            "(graph)", *plan_text(a) && *plan_text(b) ? rs_strdup("steps") : NULL);
}

void rs_graph_diff_fini(struct rs_graph_diff *d)
{
    for (size_t i = 0; i < d->count; i++) {
        free(d->items[i].name);
        free(d->items[i].fields);
    }
    free(d->items);
    *d = (struct rs_graph_diff){0};
}
