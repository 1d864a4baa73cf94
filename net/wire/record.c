#include "net/wire/record.h"

void rs_record_encode(const struct rs_record *r, uint8_t out[RS_RECORD_HEAD])
{
    out[0] = r->type;
    out[1] = r->flags;
    for (unsigned i = 0; i < 2; i++)
        out[2 + i] = (uint8_t)(r->code >> (8 * i));
    for (unsigned i = 0; i < 4; i++)
        out[4 + i] = (uint8_t)(r->len >> (8 * i));
}

struct rs_record rs_record_decode(const uint8_t in[RS_RECORD_HEAD])
{
    return (struct rs_record){.type = in[0],
                              .flags = in[1],
                              .code = (uint16_t)(in[2] | in[3] << 8),
                              .len = in[4] | (uint32_t)in[5] << 8 | (uint32_t)in[6] << 16 |
                                     (uint32_t)in[7] << 24};
}
