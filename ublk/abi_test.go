package ublk

import (
	"testing"
	"unsafe"
)

func TestKernelStructsHaveTheKernelsLayout(t *testing.T) {
	for _, c := range []struct {
		name      string
		got, want uintptr
	}{
		{"sizeof(ublksrv_ctrl_cmd)", unsafe.Sizeof(ctrlCmd{}), 32},
		{"ublksrv_ctrl_cmd.queue_id", unsafe.Offsetof(ctrlCmd{}.queueID), 4},
		{"ublksrv_ctrl_cmd.len", unsafe.Offsetof(ctrlCmd{}.len), 6},
		{"ublksrv_ctrl_cmd.addr", unsafe.Offsetof(ctrlCmd{}.addr), 8},
		{"ublksrv_ctrl_cmd.data", unsafe.Offsetof(ctrlCmd{}.data), 16},
		{"ublksrv_ctrl_cmd.dev_path_len", unsafe.Offsetof(ctrlCmd{}.devPathLen), 24},
		{"sizeof(ublksrv_ctrl_dev_info)", unsafe.Sizeof(devInfo{}), 64},
		{"ublksrv_ctrl_dev_info.queue_depth", unsafe.Offsetof(devInfo{}.queueDepth), 2},
		{"ublksrv_ctrl_dev_info.state", unsafe.Offsetof(devInfo{}.state), 4},
		{"ublksrv_ctrl_dev_info.max_io_buf_bytes", unsafe.Offsetof(devInfo{}.maxIOBufBytes), 8},
		{"ublksrv_ctrl_dev_info.dev_id", unsafe.Offsetof(devInfo{}.devID), 12},
		{"ublksrv_ctrl_dev_info.ublksrv_pid", unsafe.Offsetof(devInfo{}.ublksrvPID), 16},
		{"ublksrv_ctrl_dev_info.flags", unsafe.Offsetof(devInfo{}.flags), 24},
		{"ublksrv_ctrl_dev_info.ublksrv_flags", unsafe.Offsetof(devInfo{}.ublksrvFlags), 32},
		{"ublksrv_ctrl_dev_info.owner_uid", unsafe.Offsetof(devInfo{}.ownerUID), 40},
		{"sizeof(ublksrv_io_desc)", unsafe.Sizeof(ioDesc{}), 24},
		{"ublksrv_io_desc.nr_sectors", unsafe.Offsetof(ioDesc{}.nrSectors), 4},
		{"ublksrv_io_desc.start_sector", unsafe.Offsetof(ioDesc{}.startSector), 8},
		{"ublksrv_io_desc.addr", unsafe.Offsetof(ioDesc{}.addr), 16},
		{"sizeof(ublksrv_io_cmd)", unsafe.Sizeof(ioCmd{}), 16},
		{"ublksrv_io_cmd.tag", unsafe.Offsetof(ioCmd{}.tag), 2},
		{"ublksrv_io_cmd.result", unsafe.Offsetof(ioCmd{}.result), 4},
		{"ublksrv_io_cmd.addr", unsafe.Offsetof(ioCmd{}.addr), 8},
		{"sizeof(ublk_shmem_buf_reg)", unsafe.Sizeof(shmemBufReg{}), 24},
		{"ublk_shmem_buf_reg.flags", unsafe.Offsetof(shmemBufReg{}.flags), 16},
		{"sizeof(ublk_param_basic)", unsafe.Sizeof(paramBasic{}), 32},
		{"ublk_param_basic.logical_bs_shift", unsafe.Offsetof(paramBasic{}.logicalShift), 4},
		{"ublk_param_basic.physical_bs_shift", unsafe.Offsetof(paramBasic{}.physicalShift), 5},
		{"ublk_param_basic.io_opt_shift", unsafe.Offsetof(paramBasic{}.ioOptShift), 6},
		{"ublk_param_basic.io_min_shift", unsafe.Offsetof(paramBasic{}.ioMinShift), 7},
		{"ublk_param_basic.max_sectors", unsafe.Offsetof(paramBasic{}.maxSectors), 8},
		{"ublk_param_basic.dev_sectors", unsafe.Offsetof(paramBasic{}.devSectors), 16},
		{"sizeof(ublk_param_discard)", unsafe.Sizeof(paramDiscard{}), 20},
		{"ublk_param_discard.max_write_zeroes_sectors", unsafe.Offsetof(paramDiscard{}.maxWriteZeroesSectors), 12},
		{"ublk_param_discard.max_discard_segments", unsafe.Offsetof(paramDiscard{}.maxSegments), 16},
		{"ublk_params.basic", unsafe.Offsetof(params{}.basic), 8},
		{"ublk_params.discard", unsafe.Offsetof(params{}.discard), 40},
		{"ublk_params.devt", unsafe.Offsetof(params{}.devt), 60},
		{"ublk_params.dma", unsafe.Offsetof(params{}.dma), 108},
		{"ublk_params.seg", unsafe.Sizeof(params{}), 120},
	} {
		if c.got != c.want {
			t.Errorf("%s is %d, want %d", c.name, c.got, c.want)
		}
	}
}
