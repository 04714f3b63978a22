"""The text is part of libtpu's program for a tiny step with accumulation 2."""

import pytest

from unet_jax.planning.program import ProgramCost, program_cost

TEXT = """\
HloModule jit_train_step, is_scheduled=true, entry_computation_layout={...}

%region_5.5 (reduce.1: f32[], reduce.2: f32[]) -> f32[] {
  %reduce.1 = f32[]{:T(128)} parameter(0)
  %reduce.2 = f32[]{:T(128)} parameter(1)
  ROOT %add.1 = f32[]{:T(128)} add(%reduce.1, %reduce.2)
}

%fused_computation.126 (param_0: f32[32,16,5,8]) -> f32[8] {
  %param_0 = f32[32,16,5,8]{1,3,2,0:T(8,128)S(1)} parameter(0)
  ROOT %inner = f32[8]{0:T(128)S(1)} fusion(%param_0), calls=%region_5.5, \
backend_config={"window_config":{"estimated_cycles":"7000"}}
}

%wide.region_3.126 (wide.param.0: (s32[], f32[8])) -> (s32[], f32[8]) {
  %wide.param.0 = (s32[]{:T(128)}, f32[8]{0:T(128)S(1)}) parameter(0)
  %get-tuple-element.1 = s32[]{:T(128)} get-tuple-element(%wide.param.0), index=0
  %select_reduce_fusion.72 = (f32[8]{0:T(128)S(1)}, f32[32,16,5,8]{1,3,2,0:T(8,128)}) \
fusion(%get-tuple-element.1), kind=kOutput, calls=%fused_computation.126, \
backend_config={"flag_configs":[],"window_config":{"kernel_window_bounds":["3","3"],\
"estimated_cycles":"576","iteration_bounds":["1","1"]}}
  %get-tuple-element.2 = f32[8]{0:T(128)S(1)} \
get-tuple-element(%select_reduce_fusion.72), index=0
  %psum.1032 = f32[8]{0:T(128)S(1)} all-reduce(%get-tuple-element.2), channel_id=1, \
replica_groups={{0,1,2,3}}, use_global_device_ids=true, to_apply=%region_5.5, \
backend_config={"barrier_config":{"barrier_type":"CUSTOM","id":"0"}}
  ROOT %tuple.1 = (s32[]{:T(128)}, f32[8]{0:T(128)S(1)}) tuple(%get-tuple-element.1)
}

%wide.region_120.127 (wide.param.316: (s32[], f32[8])) -> pred[] {
  %constant.606 = s32[]{:T(128)} constant(2), metadata={op_name="jit(train_step)"}
  %wide.param.316 = (s32[]{:T(128)}, f32[8]{0:T(128)S(1)}) parameter(0)
  %get-tuple-element.2679 = s32[]{:T(128)} get-tuple-element(%wide.param.316), index=0
  ROOT %lt.15 = pred[]{:T(512)} compare(%get-tuple-element.2679, %constant.606), \
direction=LT, metadata={op_name="jit(train_step)/shard_map/while/cond/lt"}
}

ENTRY %main.220_spmd (param.147: s32[], param.148: f32[3,3,16,8]) -> (s32[], f32[8]) {
  %param.147 = s32[]{:T(128)} parameter(0), sharding={replicated}
  %param.148 = f32[3,3,16,8]{2,3,1,0:T(8,128)} parameter(1), sharding={replicated}
  %copy-start.1 = (f32[3,3,16,8]{2,3,1,0:T(8,128)S(1)}, \
f32[3,3,16,8]{2,3,1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%param.148)
  %copy-done.1 = f32[3,3,16,8]{2,3,1,0:T(8,128)S(1)} copy-done(%copy-start.1)
  %tuple.585 = (s32[]{:T(128)}, f32[8]{0:T(128)S(1)}) tuple(%param.147)
  %while.126 = (s32[]{:T(128)}, f32[8]{0:T(128)S(1)}) while(%tuple.585), \
condition=%wide.region_120.127, body=%wide.region_3.126, metadata={op_name="while"}
  %all-reduce.1 = (f32[3,3,16,8]{2,3,1,0:T(8,128)S(1)}, bf16[8]{0:T(128)S(1)}, \
/*index=2*/pred[8]{0:T(512)S(1)}) all-reduce(%copy-done.1), channel_id=1, \
to_apply=%region_5.5
  %multiply.1 = bf16[9,130]{1,0:T(8,128)(2,1)} multiply(%copy-done.1, %copy-done.1), \
backend_config={"window_config":{"estimated_cycles":"1973"}}
  ROOT %tuple.2 = (s32[]{:T(128)}, f32[8]{0:T(128)S(1)}) tuple(%while.126)
}
"""

# In the body of the loop: the scalar counter (a tile of 128 numbers) is read, and
# 32 x 5 x (8, 128) float32 are written to HBM.
BODY_BYTES = 4 * 128 + 4 * 32 * 5 * 8 * 128


def test_loops_count_as_often_as_they_run_and_fusions_once():
    cost = program_cost(TEXT)
    assert cost.cycles == 2 * 576 + 1973
    assert cost.all_reduces == 2 * 1 + 1
    assert cost.all_reduce_bytes == 2 * 8 * 4 + (4 * 3 * 3 * 16 * 8 + 2 * 8 + 8)


def test_bytes_are_those_in_hbm_with_their_padding():
    copied = 4 * 3 * 3 * 8 * 128  # read from HBM, written to the chip's own memory
    product = 2 * 16 * 256  # (9, 130) of bfloat16 in tiles of (8, 128)
    assert program_cost(TEXT).hbm_bytes == copied + product + 2 * BODY_BYTES


def test_a_trip_count_that_the_compiler_states_is_taken():
    stated = TEXT.replace(
        'metadata={op_name="while"}',
        'backend_config={"known_trip_count":{"n":"5"}}',
    )
    assert program_cost(stated).cycles == 5 * 576 + 1973


def test_a_loop_of_unknown_length_counts_once():
    unknown = TEXT.replace("direction=LT", "direction=NE")
    assert program_cost(unknown).cycles == 576 + 1973


def test_the_most_expensive_branch_counts():
    branch = (
        "  %conditional.1 = s32[]{:T(128)} conditional(%param.147, %tuple.585, "
        "%tuple.585), branch_computations={%region_5.5, %wide.region_3.126}\n"
        "  %while.126"
    )
    cost = program_cost(TEXT.replace("  %while.126", branch, 1))
    assert cost.cycles == 576 + 2 * 576 + 1973
    assert cost.all_reduces == 4


def test_an_exchange_inside_a_fusion_is_seen():
    hidden = TEXT.replace("fusion(%param_0), calls=", "all-reduce(%param_0), to_apply=")
    assert program_cost(hidden).all_reduces == 2 * 2 + 1


def test_in_place_updates_and_slices_move_only_their_part():
    text = """\
ENTRY %main (a: f32[8,1024], b: f32[8,128]) -> f32[8,1024] {
  %a = f32[8,1024]{1,0:T(8,128)} parameter(0)
  %b = f32[8,128]{1,0:T(8,128)} parameter(1)
  %c = s32[]{:T(128)} constant(0)
  %s = f32[8,128]{1,0:T(8,128)} dynamic-slice(%a, %c, %c), dynamic_slice_sizes={8,128}
  %t = ((f32[8,1024]{1,0:T(8,128)}), f32[8,256]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) \
slice-start(%a), slice={[0:8], [0:256]}
  %d = f32[8,256]{1,0:T(8,128)S(1)} slice-done(%t)
  ROOT %u = f32[8,1024]{1,0:T(8,128)} dynamic-update-slice(%a, %b, %c, %c)
}
"""
    assert program_cost(text).hbm_bytes == 2 * 4096 + 2 * 4096 + 8192


def test_costs_add_up():
    assert ProgramCost(1, 2, 3, 4).times(2).plus(
        ProgramCost(1, 1, 1, 1)
    ) == ProgramCost(3, 5, 7, 9)


def test_a_text_without_an_entry_is_refused():
    with pytest.raises(ValueError, match="found no ENTRY computation"):
        program_cost("HloModule nothing")
