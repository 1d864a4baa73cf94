#include "sched/place.h"

#include "core/base/alloc.h"
#include "core/resource/resources.h"

#include <stdlib.h>

#define WHY_NODES 3

static bool may_take(const struct rs_place_node *n, const struct rs_place_want *want)
{
    return n->usable && !n->unlike &&
           (want->max_per_node == 0 || n->replicas < want->max_per_node) &&
           rs_resources_fits(n->free, want->each);
}

static double share(int64_t free, int64_t wanted)
{
    return (double)free / (double)wanted;
}

/* How many more would fit, by the resource that runs out first. Wants nothing: by free CPUs. */
static double room(const struct rs_place_node *n, const struct rs_resources *each)
{
    double least = 1e18;

    if (each->cpu > 0 && share(n->free->cpu, each->cpu) < least)
        least = share(n->free->cpu, each->cpu);
    if (each->gpu > 0 && share(n->free->gpu, each->gpu) < least)
        least = share(n->free->gpu, each->gpu);
    if (each->memory > 0 && share(n->free->memory, each->memory) < least)
        least = share(n->free->memory, each->memory);
    for (size_t i = 0; i < each->count; i++) {
        int64_t have = rs_resources_custom(n->free, each->custom[i].name);

        if (share(have, each->custom[i].amount) < least)
            least = share(have, each->custom[i].amount);
    }
    return least < 1e18 ? least : (double)n->free->cpu;
}

size_t rs_place_pick(const struct rs_place_node *nodes, size_t n, const struct rs_place_want *want)
{
    size_t best = RS_PLACE_NONE;

    for (size_t i = 0; i < n; i++) {
        if (!may_take(&nodes[i], want))
            continue;
        if (best == RS_PLACE_NONE || nodes[i].replicas < nodes[best].replicas ||
            (nodes[i].replicas == nodes[best].replicas &&
             room(&nodes[i], want->each) > room(&nodes[best], want->each)))
            best = i;
    }
    return best;
}

/* --- why not --- */

struct shortage {
    struct rs_buf *out;
    unsigned count;
};

static void lacks(struct shortage *s, const char *unit, int64_t need, int64_t total, int64_t free,
                  void (*print)(struct rs_buf *out, int64_t v))
{
    if (need <= free || need == 0)
        return;
    rs_buf_printf(s->out, "%sneeds ", s->count++ ? " and " : "");
    print(s->out, need);
    rs_buf_printf(s->out, "%s; node has ", unit);
    print(s->out, total);
    if (free != total && total >= need) {
        rs_buf_puts(s->out, ", ");
        print(s->out, free > 0 ? free : 0);
        rs_buf_puts(s->out, " free");
    }
}

static unsigned why_node(const struct rs_place_node *n, const struct rs_place_want *want,
                         struct rs_buf *out)
{
    struct shortage s = {.out = out};
    const struct rs_resources *w = want->each;

    if (!n->usable) {
        rs_buf_puts(out, "the node takes no new replicas");
        return 1;
    }
    if (n->unlike) {
        rs_buf_puts(out, "its labels are other ones");
        return 1;
    }
    if (want->max_per_node && n->replicas >= want->max_per_node) {
        rs_buf_printf(out, "runs %u of at most %u replicas per node", n->replicas,
                      want->max_per_node);
        return 1;
    }
    lacks(&s, " CPU", w->cpu, n->total->cpu, n->free->cpu, rs_fixed_print);
    lacks(&s, " GPU", w->gpu, n->total->gpu, n->free->gpu, rs_fixed_print);
    lacks(&s, " memory", w->memory, n->total->memory, n->free->memory, rs_memory_print);
    for (size_t i = 0; i < w->count; i++) {
        rs_auto(rs_freep) char *unit = rs_asprintf(" %s", w->custom[i].name);

        lacks(&s, unit, w->custom[i].amount, rs_resources_custom(n->total, w->custom[i].name),
              rs_resources_custom(n->free, w->custom[i].name), rs_fixed_print);
    }
    return s.count;
}

void rs_place_why(const struct rs_place_node *nodes, size_t n, const struct rs_place_want *want,
                  struct rs_buf *ret)
{
    if (n == 0) {
        rs_buf_puts(ret, "needs ");
        rs_resources_print(ret, want->each);
        rs_buf_puts(ret, "; there is no node yet");
        return;
    }
    for (size_t i = 0; i < n && i < WHY_NODES; i++) {
        rs_buf_puts(ret, i ? "; " : "");
        if (n > 1) /* with one node there is no question which */
            rs_buf_printf(ret, "%s: ", nodes[i].name ? nodes[i].name : nodes[i].id);
        why_node(&nodes[i], want, ret);
    }
    if (n > WHY_NODES)
        rs_buf_printf(ret, "; and %zu more nodes", n - WHY_NODES);
}

/* --- giving up --- */

static bool drops_before(const struct rs_place_node *a, const struct rs_place_node *b)
{
    if (a->usable != b->usable)
        return !a->usable;
    if (a->head != b->head)
        return b->head;
    return a->replicas_all < b->replicas_all;
}

size_t rs_place_drop(const struct rs_place_node *nodes, size_t n)
{
    size_t best = RS_PLACE_NONE;

    for (size_t i = 0; i < n; i++)
        if (nodes[i].replicas > 0 &&
            (best == RS_PLACE_NONE || drops_before(&nodes[i], &nodes[best])))
            best = i;
    return best;
}
