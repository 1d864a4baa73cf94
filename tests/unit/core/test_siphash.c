#include "core/base/siphash.h"
#include "tests/unit/check_main.h"

#include "core/base/error.h"

#include <inttypes.h>

/* From the paper's reference: key 00 01 .. 0f, input 00 01 .. (n - 1). */
static const struct {
    size_t len;
    uint64_t want;
} vectors[] = {
    {0, UINT64_C(0x726fdb47dd0e0e31)},  {1, UINT64_C(0x74f839c593dc67fd)},
    {7, UINT64_C(0xab0200f58b01d137)},  {8, UINT64_C(0x93f5f5799a932462)},
    {15, UINT64_C(0xa129ca6149be45e5)},
};

START_TEST(reference_vectors)
{
    const uint64_t key[2] = {UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908)};
    unsigned char in[16];
    uint64_t got;

    for (unsigned char i = 0; i < sizeof(in); i++)
        in[i] = i;
    got = rs_siphash(key, in, vectors[_i].len);
    ck_assert_msg(got == vectors[_i].want, "%zu: %016" PRIx64, vectors[_i].len, got);
}
END_TEST

RS_CHECK_MAIN("siphash", tcase_add_loop_test(tc, reference_vectors, 0, RS_COUNT(vectors));)
