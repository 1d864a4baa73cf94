#include "net/router/wired.h"

#include "core/base/alloc.h"
#include "core/base/file.h"
#include "net/router/call-internal.h"
#include "net/wire/pickle.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum {
    SPARE_STEP = 16 << 10, /* credit for what pickles add is given back in steps of at least this */
    READ_MAX = 16 << 20,   /* a longer item in a memfd goes the long way */
};

void rs_wired_begin(struct rs_channel *ch, struct rs_request *r, const struct rs_fields *fields)
{
    uint64_t stream = rs_fields_uint(fields, RS_TAG_BODY_OF, 0);
    struct rs_call *call = ch->node ? NULL : rs_streams_get(&ch->in, stream);

    if (!call || call->items != rs_fields_uint(fields, RS_TAG_GOT, 0))
        return;
    if (call->objects || call->granted || call->wire || (r->wire && r->wire != stream))
        return;
    if (call->r.kind != RS_REQUEST_CALL ||
        (r->kind != RS_REQUEST_HTTP && r->kind != RS_REQUEST_CALL))
        return;
    call->wire = r->stream;
    r->wire = stream;
}

int rs_wired_pass(struct rs_channel *ch, const struct rs_frame *f, struct rs_error *err)
{
    struct rs_request *r = rs_streams_get(&ch->out, f->h.stream);
    struct rs_fields fields;

    if (rs_fields_parse(f->meta, f->h.meta_len, &fields, err) < 0)
        return -1;
    if (r)
        rs_wired_begin(ch, r, &fields);
    return 0;
}

void rs_wired_head(struct rs_call *call, const struct rs_answer *a, bool end)
{
    struct rs_fields fields;
    struct rs_field type;

    if (end || !a->meta || rs_fields_parse(a->meta, a->meta_len, &fields, NULL) < 0) {
        call->wire = 0;
        return;
    }
    type = fields.at[RS_TAG_CONTENT_TYPE];
    if (!rs_fields_uint(&fields, RS_TAG_ITEMS, 0) || type.len != strlen(RS_PICKLE_TYPE) ||
        memcmp(type.data, RS_PICKLE_TYPE, type.len) != 0)
        call->wire = 0;
}

/* The request that the call is wired to; NULL: it has ended. */
static struct rs_request *target(const struct rs_call *call)
{
    struct rs_request *r = rs_streams_get(&call->ch->out, call->wire);

    return r && r->wire == call->stream ? r : NULL;
}

/* The caller of a call gets items as they are. */
static bool pass_as_it_is(struct rs_request *r, struct rs_chunk *body)
{
    r->wired += body->len;
    rs_request_data(r, body, false);
    return true;
}

static bool pass_text(struct rs_call *call, struct rs_request *r, const char *pickle, size_t len)
{
    struct rs_pickle_arg text;
    struct rs_chunk chunk = RS_CHUNK_NONE;

    if (rs_pickle_text(pickle, len, &text) < 0)
        return false;
    r->wired += text.len;
    r->wired_spare += len - text.len;
    if (text.len) { /* an empty piece of a body says nothing */
        chunk.data = text.data;
        chunk.len = text.len;
        rs_request_data(r, &chunk, false);
    }
    if (r->wired_spare >= SPARE_STEP) {
        uint64_t spare = r->wired_spare;

        r->wired_spare = 0;
        rs_request_window(&call->r, spare);
    }
    return true;
}

static bool pass_long(struct rs_call *call, struct rs_request *r, const struct rs_chunk *body)
{
    rs_auto(rs_freep) char *copy = NULL;

    if (body->len > READ_MAX)
        return false;
    copy = rs_alloc((size_t)body->len);
    return rs_file_read(body->fd, copy, (size_t)body->len, 0) == 0 &&
           pass_text(call, r, copy, (size_t)body->len);
}

bool rs_wired_item(struct rs_call *call, struct rs_chunk *body)
{
    struct rs_request *r = target(call);
    bool passed = false;

    if (r && body && r->kind == RS_REQUEST_CALL)
        passed = pass_as_it_is(r, body);
    else if (r && body && body->fd >= 0)
        passed = pass_long(call, r, body);
    else if (r && body)
        passed = pass_text(call, r, body->data, (size_t)body->len);
    if (!passed)
        call->wire = 0;
    return passed;
}

uint64_t rs_wired_window(struct rs_channel *ch, struct rs_request *r, uint64_t n)
{
    struct rs_call *call = rs_streams_get(&ch->in, r->wire);
    uint64_t taken = n < r->wired ? n : r->wired;

    r->wired -= taken;
    if (call && taken) {
        rs_call_window(call, taken + r->wired_spare);
        r->wired_spare = 0;
    }
    return n - taken;
}
