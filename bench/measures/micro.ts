// Measures the pure body reader and writer alone, in this process: the time per byte, per chunk, per read and per write.

import { join } from 'node:path'
import { PATTERN, PERIOD } from '../client/pattern.ts'
import { http1 } from '../client/http1.ts'

/** The modules under test in the build of the plugin. They are not exported. */
const TRANSFER = join(__dirname, '..', '..', '..', 'dist', 'transfer')

interface Reader {
  readonly done: boolean
  readonly error: Error | null
  read (input: Buffer): Buffer
}

type Part = string | Buffer

interface Writer {
  write (content: readonly Buffer[], size: number, parts: Part[]): void
}

const { ChunkedReader } = require(join(TRANSFER, 'chunked-reader.js')) as {
  ChunkedReader: new (limits: { maxTrailerSize: number, maxChunkExtensionSize: number }) => Reader
}
const { bodyWriter, gather } = require(join(TRANSFER, 'body-writer.js')) as {
  bodyWriter: (framing: { kind: 'chunked', length: number }) => Writer
  gather: (parts: readonly Part[]) => Buffer[]
}

const LIMITS = { maxTrailerSize: 2 ** 30, maxChunkExtensionSize: 2 ** 30 }

export interface Line {
  what: string
  /** Nanoseconds. */
  perByte?: number
  perChunk?: number
  perRead?: number
  perWrite?: number
}

export function micro (): { reader: Line[], writer: Line[], segmentation: Line[] } {
  return { reader: SIZES.map(readBody), writer: SIZES.flatMap(writeBody), segmentation: SEGMENT_SIZES.flatMap(readSegmented) }
}

const SIZES = [64, 1024, 16384, 65536]

/** One period of content in one read of the socket. */
function readBody (chunkSize: number): Line {
  const encoded = encode(chunkSize)
  const took = readSegments(encoded, encoded.length)
  return { what: `chunks of ${size(chunkSize)}`, perByte: took / PERIOD, perChunk: took / (PERIOD / chunkSize) }
}

/** One period of content in one tick, in one or more writes. */
function writeBody (writeSize: number): Line[] {
  const content: Buffer[] = []
  for (let at = 0; at < PERIOD; at += writeSize) content.push(PATTERN.subarray(at, at + writeSize))
  const writer = bodyWriter({ kind: 'chunked', length: Infinity })
  const took = time(() => {
    const parts: Part[] = []
    writer.write(content, PERIOD, parts)
    gather(parts)
  })
  return [{ what: `${size(PERIOD)} in writes of ${size(writeSize)}`, perByte: took / PERIOD, perWrite: took / content.length }]
}

/** Bytes of one read. */
const SEGMENT_SIZES = [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536]

/** One chunk in many reads. Its cost must be linear in their number: no byte may be read twice. */
function readSegmented (segmentSize: number): Line[] {
  const encoded = http1.encodeChunk(PATTERN.subarray(0, PERIOD))
  const took = readSegments(encoded, segmentSize)
  return [{ what: `one chunk of ${size(PERIOD)}, in reads of ${size(segmentSize)}`, perChunk: took, perRead: took / Math.ceil(encoded.length / segmentSize) }]
}

/** Nanoseconds to read `encoded` once. The reader moves content in place: the time to restore the bytes is subtracted. */
function readSegments (encoded: Buffer, segmentSize: number): number {
  const scratch = Buffer.from(encoded)
  const segments: Buffer[] = []
  for (let at = 0; at < encoded.length; at += segmentSize) segments.push(scratch.subarray(at, at + segmentSize))
  const restore = (): void => { encoded.copy(scratch) }
  const read = (): void => {
    const reader = new ChunkedReader(LIMITS)
    for (let i = 0; i < segments.length; i++) reader.read(segments[i])
    if (reader.error !== null) throw reader.error
  }
  read()
  if (scratch.equals(encoded)) return time(read)
  const readAndRestore = time(() => {
    restore()
    read()
  })
  return readAndRestore - time(restore)
}

function encode (chunkSize: number): Buffer {
  const chunks: Buffer[] = []
  for (let at = 0; at < PERIOD; at += chunkSize) chunks.push(http1.encodeChunk(PATTERN.subarray(at, at + chunkSize)))
  return Buffer.concat(chunks)
}

const ROUNDS = 9
const ROUND_NS = 20e6

/** Nanoseconds of one call, in the fastest round. */
function time (run: () => void): number {
  const rounds: number[] = []
  for (let round = 0; round < ROUNDS; round++) {
    let calls = 0
    let took = 0
    const start = process.hrtime.bigint()
    while (took < ROUND_NS) {
      for (let i = 0; i < 16; i++) run()
      calls += 16
      took = Number(process.hrtime.bigint() - start)
    }
    rounds.push(took / calls)
  }
  return Math.min(...rounds)
}

function size (bytes: number): string {
  return bytes < 1024 ? `${bytes} B` : `${bytes / 1024} KiB`
}
