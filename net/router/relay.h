/* A request whose deployment is at home on another lane.
 *
 * The request stays on its lane; its meta and body move into a twin on the home lane, whose origin is
 * the relay. What happens on one side is posted to the other as plain bytes and descriptors.
 *
 * Thread: each function is called on the origin's lane.
 */
#pragma once

#include "net/router/lane.h"
#include "net/router/request.h"

void rs_relay_submit(struct rs_lane *origin, struct rs_lane *home, struct rs_request *r,
                     const char *app, const char *deployment);
void rs_relay_feed(struct rs_request *r, struct rs_chunk *body, bool end);
void rs_relay_window(struct rs_request *r, uint64_t n);
void rs_relay_dispatch(struct rs_request *r, const char *meta, size_t meta_len,
                       struct rs_chunk *body);
void rs_relay_cancel(struct rs_request *r);
