// Package multipath is the logical unit as the front ends see it: block requests become SCSI commands on a path,
// and what a path or a target does to them (UNIT ATTENTION, BUSY, an abort, a lost nexus) is dealt with here, so that
// a front end sees success or a final error.
//
// A Path is one I_T nexus on one lane. When it is lost its requests are parked. It logs in again with the same
// ISID, proves that every unit is still the one it was, fences what the dead nexus may still be executing, and
// only then hands the parked requests on. A Unit is one LUN; it has one Queue for each lane.
//
// There is one Path a lane. The choice among several belongs between Queue.start and Path.submit.
package multipath
