/* What a request may want beside work: a slot to keep, the names of the replicas, one of them. */
#include "core/base/json.h"
#include "net/router/pool-internal.h"

#include <stdio.h>
#include <string.h>

static struct rs_backend *backend_of(struct rs_list *slots)
{
    return rs_container_of(rs_container_of(slots, struct rs_slots, link), struct rs_backend, slots);
}

void rs_pool_list(struct rs_pool *p, struct rs_request *r)
{
    static const char type[] = "application/json";
    rs_auto(rs_json_decrefp) json_t *ids = json_array();
    rs_auto(rs_freep) char *text = NULL;
    struct rs_buf meta = {0};
    struct rs_chunk body;

    rs_list_for_each (it, &p->queue.slots) {
        const struct rs_backend *b = backend_of(it);

        if (b->replica_id && b->slots.admitted)
            json_array_append_new(ids, json_string(b->replica_id));
    }
    text = rs_json_dump(ids);
    body = (struct rs_chunk){text, strlen(text), -1};
    rs_field_put(&meta, RS_TAG_CONTENT_TYPE, type, sizeof(type) - 1);
    r->reply->answer(r,
                     &(struct rs_answer){.meta = rs_buf_head(&meta), .meta_len = rs_buf_len(&meta)},
                     &body, true);
    rs_buf_fini(&meta);
}

static struct rs_backend *find(const struct rs_pool *p, const char *id, size_t len)
{
    rs_list_for_each (it, &p->queue.slots) {
        struct rs_backend *b = backend_of(it);

        if (b->replica_id && !b->gone && strlen(b->replica_id) == len &&
            memcmp(b->replica_id, id, len) == 0)
            return b;
    }
    return NULL;
}

/* Beyond its slots, if need be: it has one more in flight than it has slots for. */
void rs_pool_aim(struct rs_pool *p, struct rs_request *r)
{
    struct rs_backend *b = NULL;
    struct rs_fields fields;

    if (rs_fields_parse(rs_buf_head(&r->meta), rs_buf_len(&r->meta), &fields, NULL) == 0)
        b = find(p, fields.at[RS_TAG_REPLICA].data, fields.at[RS_TAG_REPLICA].len);
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
