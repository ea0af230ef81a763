// The processor's matrix unit (AMX): tiles of 16 rows of 64 bytes. A product takes rows of 32 bf16
// and a tile whose row p holds rows 2p and 2p + 1 of the right matrix side by side, and adds to 16
// rows of 16 floats.
#pragma once

#include "vectors.h"

#if defined(__linux__) && defined(__AMX_BF16__) && defined(__AVX512BF16__)
#define TILES
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

// Whether the system lets this process use them.
inline bool tiles_allowed() {
    constexpr long REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
    static const bool granted = syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
    return granted;
}

// This thread's tiles, whole ones, for as long as it lives. Other libraries configure them too: what
// they chose is put back.
class Configured {
  public:
    Configured() {
        struct alignas(64) {
            uint8_t palette = 1, start = 0, reserved[14] = {};
            uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
            uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
        } mine;
        _tile_storeconfig(theirs_);
        _tile_loadconfig(&mine);
    }
    ~Configured() { _tile_loadconfig(theirs_); }
    Configured(const Configured&) = delete;
    Configured& operator=(const Configured&) = delete;

  private:
    alignas(64) uint8_t theirs_[64];
};

}  // namespace
#endif
