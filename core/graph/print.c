/* The graph as a tree for people: callees below their callers, each spelled out once. */
#include "core/graph/graph.h"

#include "core/base/alloc.h"
#include "core/base/text.h"

#include <stdlib.h>
#include <string.h>

/* Deeper ones are named without what is below them; a page has no room for more. */
#define DEPTH_MAX 40

struct printing {
    const struct rs_graph *g;
    struct rs_buf *out;
    void (*note)(const struct rs_graph_node *n, struct rs_buf *out, void *arg);
    void *arg;
    bool *seen;
    struct rs_buf margin; /* the bars left of a line */
};

static void name_line(struct printing *p, const struct rs_graph_node *n, bool above)
{
    rs_text_fit(p->out, n->name, 60);
    if (above)
        rs_buf_puts(p->out, "  (above)");
    else if (p->note)
        p->note(n, p->out, p->arg);
    rs_buf_puts(p->out, "\n");
}

static void node(struct printing *p, size_t at, int depth)
{
    const struct rs_graph_node *n = &p->g->nodes[at];
    size_t back = rs_buf_len(&p->margin);
    bool above = p->seen[at];

    name_line(p, n, above);
    p->seen[at] = true;
    if (above || depth == DEPTH_MAX)
        return;
    for (size_t i = 0; i < n->call_count; i++) {
        bool last = i + 1 == n->call_count;

        rs_buf_puts(p->out, rs_buf_text(&p->margin));
        rs_buf_puts(p->out, last ? "└─ " : "├─ ");
        rs_buf_puts(&p->margin, last ? "   " : "│  ");
        node(p, n->calls[i], depth + 1);
        p->margin.end = p->margin.start + back;
        p->margin.data[p->margin.end] = '\0';
    }
}

void rs_graph_print(const struct rs_graph *g, struct rs_buf *out,
                    void (*note)(const struct rs_graph_node *n, struct rs_buf *out, void *arg),
                    void *arg)
{
    struct printing p = {.g = g, .out = out, .note = note, .arg = arg};

    p.seen = rs_alloc(g->count * sizeof(*p.seen));
    if (g->plan)
        rs_plan_print(g->plan, out);
    if (g->count &&
        (!g->plan || g->nodes[g->ingress].call_count || !g->nodes[g->ingress].from_file))
        node(&p, g->ingress, 0);
    for (size_t i = 0; i < g->count; i++) {
        bool calls = g->plan && g->nodes[i].call_count;

        if (!p.seen[i] && (calls || rs_graph_unreached(g, i)))
            node(&p, i, 0);
    }
    rs_buf_fini(&p.margin);
    free(p.seen);
}
