/* Nodes that do not speak, and those that are lost: what is known of how, for people and for events. */
#include "sched/controller-internal.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"

#include <stdlib.h>
#include <string.h>

#define QUIET (3 * RS_SEC) /* nodes report every second */

struct rs_ct_lost_node {
    char *id, *name, *cause, *text;
    double at_s, silent_s, limit_s; /* wall clock; 0, 0: it was not silence */
    unsigned replicas;              /* that took requests */
};

static void fini(struct rs_ct_lost_node *l)
{
    free(l->id);
    free(l->name);
    free(l->cause);
    free(l->text);
    *l = (struct rs_ct_lost_node){0};
}

void rs_ct_lost_free(struct rs_controller *c)
{
    for (size_t i = 0; i < c->n_lost; i++)
        fini(&c->lost[i]);
    free(c->lost);
}

static const char *cause_of(const struct rs_ct_node *n, const struct rs_controller_loss *why)
{
    if (n->draining || (n->report && n->report->draining))
        return "drained";
    if (why && why->silent > 0)
        return "silent";
    return "closed";
}

char *rs_ct_loss_text(const struct rs_ct_node *n, const struct rs_controller_loss *why)
{
    const char *cause = cause_of(n, why);

    if (strcmp(cause, "drained") == 0)
        return rs_strdup("it finished what it had, as it was told");
    if (strcmp(cause, "silent") == 0)
        return rs_asprintf("nothing was heard of it for %.3g s, limit %.3g s",
                           (double)why->silent / 1e9, (double)why->limit / 1e9);
    return why && why->text && *why->text ? rs_asprintf("its connection ended: %s", why->text)
                                          : rs_strdup("its connection ended");
}

static unsigned running(const struct rs_ct_node *n)
{
    unsigned count = 0;

    for (size_t i = 0; n->report && i < n->report->n_replicas; i++)
        count += n->report->replicas[i].state == RS_REPLICA_RUNNING ||
                 n->report->replicas[i].state == RS_REPLICA_UPDATING;
    return count;
}

static json_t *to_json(const struct rs_ct_lost_node *l)
{
    json_t *j =
        json_pack("{s:s, s:s, s:s, s:s, s:f, s:i}", "node_id", l->id, "name", l->name, "cause",
                  l->cause, "text", l->text, "at_s", l->at_s, "replicas", (int)l->replicas);

    if (l->limit_s > 0) {
        json_object_set_new(j, "value", json_real(l->silent_s));
        json_object_set_new(j, "limit", json_real(l->limit_s));
        json_object_set_new(j, "unit", json_string("s"));
    }
    return j;
}

void rs_ct_lost(struct rs_controller *c, const struct rs_ct_node *n,
                const struct rs_controller_loss *why, int64_t now)
{
    struct rs_ct_lost_node *l;
    rs_auto(rs_json_decrefp) json_t *data = NULL;

    if (!c->lost)
        c->lost = rs_alloc(RS_CT_LOST_MAX * sizeof(*c->lost));
    if (c->n_lost == RS_CT_LOST_MAX) {
        fini(&c->lost[0]);
        memmove(&c->lost[0], &c->lost[1], (RS_CT_LOST_MAX - 1) * sizeof(*c->lost));
        c->n_lost--;
    }
    l = &c->lost[c->n_lost++];
    *l = (struct rs_ct_lost_node){
        .id = rs_strdup(n->id),
        .name = rs_strdup(n->name),
        .cause = rs_strdup(cause_of(n, why)),
        .text = rs_ct_loss_text(n, why),
        .at_s = rs_ct_wall(c, now),
        .silent_s = why ? (double)why->silent / 1e9 : 0,
        .limit_s = why && why->silent > 0 ? (double)why->limit / 1e9 : 0,
        .replicas = running(n),
    };
    data = to_json(l);
    rs_ct_emit(c, &(struct rs_controller_event){.kind = RS_EVENT_NODE,
                                                .node_id = n->id,
                                                .node = n->name,
                                                .status = "LEFT",
                                                .cause = l->cause,
                                                .text = n->name,
                                                .data = data});
}

json_t *rs_ct_lost_json(const struct rs_controller *c)
{
    json_t *list = json_array();

    for (size_t i = 0; i < c->n_lost; i++)
        json_array_append_new(list, to_json(&c->lost[i]));
    return list;
}

json_t *rs_ct_node_health(const struct rs_controller *c, const struct rs_ct_node *n, int64_t now)
{
    int64_t quiet = now - n->reported_at;

    /* The head's own speaks when there is something to say. */
    if (!n->report || strcmp(n->id, c->node_id) == 0 || quiet < QUIET)
        return json_null();
    return json_pack("{s:s, s:f, s:f, s:s}", "condition", "not_answering", "value",
                     (double)quiet / 1e9, "limit", (double)RS_NODE_SILENT / 1e9, "unit", "s");
}
