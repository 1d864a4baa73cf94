/* Streams that are passed straight through: the items of a call that a replica makes become the body
 * of what it answers, without visiting it.
 *
 * The replica says so when it begins its answer (BODY_OF in RESPONSE names the call). From then on the
 * call's items go to the request's origin: to a client as the text or bytes that they are, to a caller
 * as they came. The head, the end and the errors of the call still go to the replica, which ends its
 * answer as it would have done with items of its own; so what it does at the end stays in its hands.
 * An item that cannot be passed on (not text, not bytes) goes to the replica, and all later ones.
 *
 * A call of which items went to the replica before is wired only if the replica has sent all of them
 * on: else items could overtake others. It says how many it had (BODY_OF with GOT, in RESPONSE or
 * later in PASS); where more are on their way to it, nothing changes, and it may ask again.
 * Both ends know each other by stream number, so that either may end first.
 * Thread: the lane of the replica's connection.
 */
#pragma once

#include "net/router/channel.h"
#include "net/router/request.h"

/* The answer of `r`, which was sent over `ch`, is from now on the items of the call that BODY_OF
 * names. Does nothing where that cannot be. */
void rs_wired_begin(struct rs_channel *ch, struct rs_request *r, const struct rs_fields *fields);
/* A PASS frame. */
RS_MUST_CHECK int rs_wired_pass(struct rs_channel *ch, const struct rs_frame *f,
                                struct rs_error *err);
/* The head of the call's answer came: whether its items are what the node can pass on. */
void rs_wired_head(struct rs_call *call, const struct rs_answer *a, bool end);
/* An item of the call. False: it is for the replica. */
bool rs_wired_item(struct rs_call *call, struct rs_chunk *body);
/* The origin of `r` took `n` bytes; returns how many of them were the replica's own. */
uint64_t rs_wired_window(struct rs_channel *ch, struct rs_request *r, uint64_t n);
