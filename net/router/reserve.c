/* What a request may want beside work: a slot to keep, the names of the replicas, one of them. */
#include "core/base/json.h"
#include "net/router/peer.h"
#include "net/router/pool-internal.h"

#include <stdio.h>
#include <string.h>

static struct rs_backend *backend_of(struct rs_list *slots)
{
    return rs_container_of(rs_container_of(slots, struct rs_slots, link), struct rs_backend, slots);
}

/* This node's by name, and the other nodes; a node that asks knows these itself. */
static json_t *listed(const struct rs_pool *p, bool local_only)
{
    json_t *ids = json_array();

    rs_list_for_each (it, &p->queue.slots) {
        const struct rs_backend *b = backend_of(it);

        if (!b->slots.admitted)
            continue;
        if (b->replica_id)
            json_array_append_new(ids, json_string(b->replica_id));
        else if (!local_only)
            json_array_append_new(ids, json_pack("{s:s}", "node_id", rs_peer_backend_node(b)));
    }
    return ids;
}

static void answer_list(const struct rs_pool *p, struct rs_request *r)
{
    static const char type[] = "application/json";
    rs_auto(rs_json_decrefp) json_t *ids = listed(p, r->local_only);
    rs_auto(rs_freep) char *text = rs_json_dump(ids);
    struct rs_chunk body = {text, strlen(text), -1};
    struct rs_buf meta = {0};

    rs_field_put(&meta, RS_TAG_CONTENT_TYPE, type, sizeof(type) - 1);
    r->reply->answer(r,
                     &(struct rs_answer){.meta = rs_buf_head(&meta), .meta_len = rs_buf_len(&meta)},
                     &body, true);
    rs_buf_fini(&meta);
}

static bool is(const char *text, const struct rs_field *field)
{
    return text && strlen(text) == field->len && memcmp(text, field->data, field->len) == 0;
}

/* The replica, or the node that has it. */
static struct rs_backend *find(const struct rs_pool *p, const struct rs_request *r,
                               const struct rs_fields *fields)
{
    bool away = !r->local_only && rs_fields_has(fields, RS_TAG_NODE);

    rs_list_for_each (it, &p->queue.slots) {
        struct rs_backend *b = backend_of(it);

        if (b->gone || away != !b->replica_id || (away && b->slots.blocked)) /* no connection now */
            continue;
        if (away ? is(rs_peer_backend_node(b), &fields->at[RS_TAG_NODE])
                 : is(b->replica_id, &fields->at[RS_TAG_REPLICA]))
            return b;
    }
    return NULL;
}

/* A request for all names, or for those of another node. */
static bool is_for_here(const struct rs_request *r, const struct rs_fields *fields)
{
    return r->wants == RS_WANTS_LIST && (r->local_only || !rs_fields_has(fields, RS_TAG_NODE));
}

/* Beyond its slots, if need be: it has one more in flight than it has slots for. */
void rs_pool_aim(struct rs_pool *p, struct rs_request *r)
{
    struct rs_backend *b = NULL;
    struct rs_fields fields;

    if (rs_fields_parse(rs_buf_head(&r->meta), rs_buf_len(&r->meta), &fields, NULL) == 0) {
        if (is_for_here(r, &fields)) {
            answer_list(p, r);
            return;
        }
        b = find(p, r, &fields);
    }
    if (!b) {
        char message[300];

        snprintf(message, sizeof(message),
                 "the replica of deployment '%.80s' (application '%.80s') is not there", p->name,
                 p->app);
        r->reply->fail(r, &(struct rs_failure){.code = RS_WIRE_DIED, .message = message});
        return;
    }
    r->pool = p;
    b->slots.in_flight++;
    rs_pool_bind(p, r, b);
    b->ops->send(b, r);
}

void rs_pool_dispatch(struct rs_pool *p, struct rs_request *r)
{
    r->wants = RS_WANTS_WORK;
    r->sent_at = rs_loop_now(p->loop);
    r->backend->ops->send(r->backend, r);
}
