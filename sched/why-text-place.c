/* What finds no room, in words. */
#include "sched/why-text-internal.h"

#include "core/base/alloc.h"
#include "core/resource/resources.h"

#include <stdlib.h>
#include <string.h>

enum { NODES_SHOWN = 6 };

/* "4 CPU", "2 GiB memory" */
static char *amount(const json_t *v, const char *resource, bool named)
{
    struct rs_buf out = {0};

    if (strcmp(resource, "memory") == 0)
        rs_memory_print(&out, (int64_t)json_number_value(v));
    else
        rs_buf_printf(&out, "%g", json_number_value(v));
    if (named)
        rs_buf_printf(&out, " %s", resource);
    return rs_buf_steal(&out);
}

/* "4 CPU, 1 GPU" of {"CPU": 4, "GPU": 1} */
static char *amounts(json_t *all)
{
    struct rs_buf out = {0};
    const char *key;
    json_t *v;

    json_object_foreach (all, key, v) {
        rs_auto(rs_freep) char *one = amount(v, key, true);

        rs_buf_printf(&out, "%s%s", rs_buf_len(&out) ? ", " : "", one);
    }
    if (!rs_buf_len(&out))
        rs_buf_puts(&out, "nothing");
    return rs_buf_steal(&out);
}

/* "region=eu, disk=ssd" */
static char *labels_text(json_t *selector)
{
    struct rs_buf out = {0};
    const char *key;
    json_t *v;

    json_object_foreach (selector, key, v)
        rs_buf_printf(&out, "%s%s=%s", rs_buf_len(&out) ? "," : "", key,
                      json_is_string(v) ? json_string_value(v) : "?");
    return rs_buf_steal(&out);
}

/* --- no room ------------------------------------------------------------------------------------- */

static void held_by(struct rs_buf *out, const json_t *lack)
{
    const json_t *list = json_object_get(lack, "held_by"), *h;
    size_t i;

    json_array_foreach (list, i, h) {
        rs_auto(rs_freep) char *has =
            amount(json_object_get(h, "amount"), rs_json_str(lack, "resource", ""), false);

        rs_buf_printf(out, "%s%s holds %s", i ? ", " : " (", rs_json_str(h, "who", "?"), has);
    }
    if (json_array_size(list))
        rs_buf_puts(out, ")");
}

static void lack_text(struct rs_buf *out, const json_t *lack)
{
    const char *resource = rs_json_str(lack, "resource", "?");
    rs_auto(rs_freep) char *asked = amount(json_object_get(lack, "asked"), resource, false),
                           *spare = amount(json_object_get(lack, "free"), resource, false),
                           *total = amount(json_object_get(lack, "total"), resource, false),
                           *more = amount(json_object_get(lack, "more"), resource, false);

    if (rs_json_num(lack, "total", 0) == 0)
        rs_buf_printf(out, "%s asked %s, the node has none: never fits there", resource, asked);
    else if (rs_json_bool(lack, "never", false))
        rs_buf_printf(out, "%s asked %s, the node has %s altogether: never fits there", resource,
                      asked, total);
    else
        rs_buf_printf(out, "%s asked %s, free %s of %s: fits when %s more is free", resource, asked,
                      spare, total, more);
    if (!rs_json_bool(lack, "never", false))
        held_by(out, lack);
}

static void differ_text(struct rs_buf *out, json_t *labels)
{
    const char *key;
    json_t *v;
    bool first = true;

    json_object_foreach (labels, key, v) {
        const char *has = rs_json_str(v, "has", NULL);

        rs_buf_printf(out, "%slabel %s asked %s, has %s", first ? "" : "; ", key,
                      rs_json_str(v, "asked", "?"), has ? has : "none");
        first = false;
    }
}

/* What would make the nearest node take it. */
struct wish {
    const char *node;
    char *more; /* "2.5 CPU" */
    bool labels, limit;
};

static void one_node(struct rs_telling *t, const json_t *n, struct wish *w)
{
    struct rs_buf out = {0};
    const json_t *lacks = json_object_get(n, "lacks"), *limit = json_object_get(n, "limit"), *lack;
    json_t *labels = json_object_get(n, "labels");
    bool never = false;
    size_t i;

    if (rs_json_bool(n, "leaving", false))
        rs_buf_puts(&out, "it is leaving and takes no new replicas");
    if (labels) {
        rs_buf_puts(&out, rs_buf_len(&out) ? "; " : "");
        differ_text(&out, labels);
        w->labels = true;
    }
    if (limit) {
        rs_buf_printf(&out, "%sruns %lld of at most %lld replicas per node",
                      rs_buf_len(&out) ? "; " : "", (long long)rs_json_int(limit, "replicas", 0),
                      (long long)rs_json_int(limit, "most", 0));
        w->limit = true;
    }
    json_array_foreach (lacks, i, lack) {
        rs_buf_puts(&out, rs_buf_len(&out) ? "; " : "");
        lack_text(&out, lack);
        never |= rs_json_bool(lack, "never", false);
    }
    if (!rs_buf_len(&out))
        rs_buf_puts(&out, "has room now: it is placed in the next round");
    if (!w->node && !never && !labels && !limit && json_array_size(lacks) > 0 &&
        !rs_json_bool(n, "leaving", false)) {
        const json_t *l = json_array_get(lacks, 0);

        w->node = rs_json_str(n, "node", "?");
        w->more = amount(json_object_get(l, "more"), rs_json_str(l, "resource", ""), true);
    }
    rs_tell(t, "%s: %s", rs_json_str(n, "node", "?"), rs_buf_text(&out));
    rs_buf_fini(&out);
}

void rs_tell_no_room(struct rs_telling *t)
{
    rs_auto(rs_freep) char *each = amounts(json_object_get(t->r, "each"));
    json_t *selector = json_object_get(t->r, "selector"), *nodes = json_object_get(t->r, "nodes");
    rs_auto(rs_freep) char *labels = labels_text(selector);
    struct wish w = {0};
    size_t i, n = json_array_size(nodes) + (size_t)rs_tell_int(t, "nodes_left_out");
    const json_t *node;

    rs_tell(t, "%lld of %lld replica%s wait%s for a place: no node has room for %s%s%s.",
            (long long)rs_tell_int(t, "missing"), (long long)rs_tell_int(t, "wanted"),
            rs_tell_s(rs_tell_int(t, "wanted")), rs_tell_int(t, "missing") == 1 ? "s" : "", each,
            *labels ? " where " : "", labels);
    json_array_foreach (nodes, i, node)
        if (i < NODES_SHOWN)
            one_node(t, node, &w);
    if (n > NODES_SHOWN)
        rs_tell(t, "and %zu more nodes", n - NODES_SHOWN);
    if (w.node)
        rs_tell_next(
            t, "Free %s on %s, or add a node with %s free, or ask for less (ray_actor_options).",
            w.more, w.node, each);
    else if (w.limit && !w.labels)
        rs_tell_next(t, "Add a node, or raise max_replicas_per_node.");
    else if (w.labels)
        rs_tell_next(
            t,
            "Add a node with these labels and %s free (rserve worker --labels %s), or change "
            "label_selector.",
            each, labels);
    else
        rs_tell_next(t, "Add a node with %s free, or ask for less (ray_actor_options).", each);
    free(w.more);
}

void rs_tell_no_node(struct rs_telling *t)
{
    rs_auto(rs_freep) char *each = amounts(json_object_get(t->r, "each"));

    rs_tell(t, "%lld of %lld replica%s wait%s: there is no node at all.",
            (long long)rs_tell_int(t, "missing"), (long long)rs_tell_int(t, "wanted"),
            rs_tell_s(rs_tell_int(t, "wanted")), rs_tell_int(t, "missing") == 1 ? "s" : "");
    rs_tell_next(
        t,
        "Start a node with %s free: rserve worker --address HEAD:6379 (or look why it does not "
        "join: its log).",
        each);
}

static char *bundles_text(const json_t *list)
{
    struct rs_buf out = {0};
    const json_t *b;
    size_t i;

    json_array_foreach (list, i, b) {
        rs_auto(rs_freep) char *each = amounts(json_object_get(b, "each"));

        rs_buf_printf(&out, "%s%lld x (%s)", i ? " and " : "",
                      (long long)rs_json_int(b, "count", 0), each);
    }
    return rs_buf_steal(&out);
}

static void group_node(struct rs_telling *t, const json_t *n, int64_t bundles)
{
    rs_auto(rs_freep) char *spare = amounts(json_object_get(n, "free"));
    json_t *labels = json_object_get(n, "labels");
    struct rs_buf out = {0};

    if (rs_json_bool(n, "leaving", false))
        rs_buf_puts(&out, "it is leaving and takes no new replicas");
    else if (labels)
        differ_text(&out, labels);
    else
        rs_buf_printf(&out, "free %s: room for %lld of %lld", spare,
                      (long long)rs_json_int(n, "fit", 0), (long long)bundles);
    rs_tell(t, "%s: %s", rs_json_str(n, "node", "?"), rs_buf_text(&out));
    rs_buf_fini(&out);
}

void rs_tell_no_room_together(struct rs_telling *t)
{
    const json_t *list = json_object_get(t->r, "bundles"), *nodes = json_object_get(t->r, "nodes"),
                 *n;
    rs_auto(rs_freep) char *bundles = bundles_text(list);
    const char *strategy = rs_tell_str(t, "strategy");
    int64_t gang = rs_tell_int(t, "gang_size");
    size_t i;

    rs_tell(t, "%lld of %lld replica%s wait%s for room together: %s needs %s, %s.",
            (long long)rs_tell_int(t, "missing"), (long long)rs_tell_int(t, "wanted"),
            rs_tell_s(rs_tell_int(t, "wanted")), rs_tell_int(t, "missing") == 1 ? "s" : "",
            gang > 0 ? "a gang" : "each", bundles,
            strcmp(strategy, "STRICT_PACK") == 0     ? "all on one node (STRICT_PACK)"
            : strcmp(strategy, "STRICT_SPREAD") == 0 ? "each on a node of its own (STRICT_SPREAD)"
            : strcmp(strategy, "SPREAD") == 0        ? "over the nodes (SPREAD)"
                                                     : "wherever they fit (PACK)");
    json_array_foreach (nodes, i, n)
        if (i < NODES_SHOWN)
            group_node(t, n, rs_json_int(json_array_get(list, 0), "count", 0));
    if (json_array_size(nodes) > NODES_SHOWN)
        rs_tell(t, "and %zu more nodes", json_array_size(nodes) - NODES_SHOWN);
    rs_tell_next(
        t, "All of it or nothing is placed: free so much, or add nodes%s, or take a smaller %s%s.",
        strcmp(strategy, "STRICT_SPREAD") == 0 ? " (one for each)" : "",
        gang > 0 ? "gang_size" : "placement_group_bundles",
        strncmp(strategy, "STRICT_", 7) == 0 ? " or a strategy that is not strict" : "");
}
