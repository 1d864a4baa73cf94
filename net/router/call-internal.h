/* What call.c and object_call.c share: a request that came over a channel. */
#pragma once

#include "net/router/channel.h"
#include "net/router/store.h"

/* What a call has to do with objects. */
struct rs_call_objects {
    struct rs_store_hold *hold;   /* its OBJECTS, until it ends */
    struct rs_store_watch *watch; /* it waits */
    struct rs_object *into;       /* its answer goes there; NULL: to the caller */
    struct rs_object_id *ids;     /* of a wait */
    size_t n_ids;
    char *app, *deployment; /* of a call that waits */
    bool has_values;        /* it came with a READY of its own */
    /* An answer that comes in pieces. */
    struct rs_buf meta, kept;
    int kept_fd;
    uint64_t kept_len;
};

struct rs_call {
    struct rs_request r;
    struct rs_channel *ch;
    struct rs_list link;
    uint64_t stream, parent;
    uint64_t owed; /* of its body, taken and not given back yet */
    struct rs_timer timer;
    bool granted;                    /* a slot is reserved; the call itself comes later */
    bool begun;                      /* some of its answer was written */
    uint64_t wire;                   /* the request that gets its items (wired.h); 0: the caller */
    uint64_t items;                  /* of its answer, that the caller got */
    struct rs_call_objects *objects; /* NULL: nothing */
};

/* --- call.c ------------------------------------------------------------------------------------ */

/* A call that is not submitted, among those of its channel. */
struct rs_call *rs_call_new(struct rs_channel *ch, const struct rs_frame *f,
                            const struct rs_fields *fields);
void rs_call_free(struct rs_call *call);
/* The fields of an ERROR frame for a failure that has none. */
void rs_call_error_fields(const struct rs_failure *f, const char *type, struct rs_buf *out);
/* Ends the call with an error, to the caller or in its object. */
void rs_call_end(struct rs_call *call, const struct rs_failure *f, const char *type);

/* --- object_call.c ----------------------------------------------------------------------------- */

/* A REQUEST to the node itself: get, put, wait. */
RS_MUST_CHECK int rs_object_request(struct rs_channel *ch, struct rs_frame *f,
                                    const struct rs_fields *fields, struct rs_error *err);
static inline bool rs_call_names_objects(const struct rs_fields *f)
{
    return rs_fields_has(f, RS_TAG_OBJECTS) || rs_fields_has(f, RS_TAG_AWAIT_OBJECTS) ||
           rs_fields_has(f, RS_TAG_RETURN_OBJECT);
}
enum { RS_CALL_TAKEN = 1 };
/* Before it is submitted: 0 go on; RS_CALL_TAKEN: it waits, or ended; -1: the fields are wrong, the
 * call is as it was. */
RS_MUST_CHECK int rs_call_begin(struct rs_call *call, const struct rs_fields *fields,
                                const char *app, const char *deployment, struct rs_error *err);
/* The answer of a call whose answer is an object; ends it with `end`. */
void rs_call_keep(struct rs_call *call, const void *meta, size_t meta_len, struct rs_chunk *body,
                  bool end);
void rs_call_keep_error(struct rs_call *call, const void *meta, size_t meta_len,
                        struct rs_chunk *body);
/* A wait whose time is over. False: it is no wait. */
bool rs_call_wait_over(struct rs_call *call);
/* What it alone waited for is cancelled. */
void rs_call_cancel_awaited(struct rs_call *call);
void rs_call_objects_free(struct rs_call *call);
