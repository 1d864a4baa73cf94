/* Answers that backends of any kind give without working on the request. */
#include "net/router/request.h"

void rs_request_refuse_websocket(struct rs_request *r)
{
    static const char headers[] = "content-type\0text/plain; charset=utf-8";
    static const char text[] = "This application does not take WebSocket connections.";
    struct rs_answer a = {.status = 501, .headers = headers, .headers_len = sizeof(headers)};

    rs_request_answer(r, &a, &(struct rs_chunk){text, sizeof(text) - 1, -1}, true);
}
