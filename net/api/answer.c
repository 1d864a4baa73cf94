#include "net/api/internal.h"

#include "core/base/json.h"
#include "core/base/text.h"

#include <stdarg.h>

enum { ERROR_SHOWN = 480 };

const char rs_api_json[] = "application/json; charset=utf-8";
const char rs_api_text[] = "text/plain; charset=utf-8";

void rs_api_answer_text(struct rs_web_answer *a, int status, const char *text)
{
    a->status = status;
    a->type = rs_api_text;
    rs_buf_puts(&a->body, text);
}

void rs_api_answer_json(struct rs_web_answer *a, int status, const json_t *value)
{
    rs_auto(rs_freep) char *text = rs_json_dump(value);

    a->status = status;
    a->type = rs_api_json;
    rs_buf_puts(&a->body, text);
}

void rs_api_answer_error(struct rs_web_answer *a, int status, const char *fmt, ...)
{
    rs_auto(rs_json_decrefp) json_t *value = NULL;
    rs_auto(rs_freep) char *why = NULL;
    struct rs_buf clean = {0};
    va_list args;

    va_start(args, fmt);
    why = rs_vasprintf(fmt, args);
    va_end(args);
    rs_text_fit(&clean, why, ERROR_SHOWN); /* it may quote anything: JSON wants UTF-8 */
    value = json_pack("{s:s}", "error", rs_buf_text(&clean));
    rs_api_answer_json(a, status, value);
    rs_buf_fini(&clean);
}

void rs_api_answer_failure(struct rs_web_answer *a, const struct rs_error *err)
{
    static const int statuses[] = {
        [RS_INVALID] = 400, [RS_NOT_FOUND] = 404, [RS_CONFLICT] = 409,
        [RS_NO_ROOM] = 507, [RS_TIMEOUT] = 504,   [RS_SYSTEM] = 500,
    };
    int status = err->code < RS_COUNT(statuses) ? statuses[err->code] : 0;

    rs_api_answer_error(a, status ? status : 500, "%s", err->msg);
}
