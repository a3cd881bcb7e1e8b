// The pure reader and writer alone, in this process: how long a byte, a chunk and a piece take.

import { join } from 'node:path'
import { PATTERN, PERIOD } from '../client/pattern.ts'
import { http1 } from '../client/http1.ts'

/** What of the plugin's build is measured; it has no public entry. */
const TRANSFER = join(__dirname, '..', '..', '..', 'dist', 'transfer')

interface Reader {
  readonly done: boolean
  readonly error: Error | null
  read (piece: Buffer): Buffer
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
  perPiece?: number
}

export function micro (): { reader: Line[], writer: Line[], segmentation: Line[] } {
  return { reader: SIZES.map(readBody), writer: SIZES.flatMap(writeBody), segmentation: CUTS.flatMap(readSegmented) }
}

const SIZES = [64, 1024, 16384, 65536]

/** One period of content in one piece, as a socket delivers it. */
function readBody (chunkSize: number): Line {
  const encoded = encode(chunkSize)
  const took = readInPieces(encoded, encoded.length)
  return { what: `chunks of ${size(chunkSize)}`, perByte: took / PERIOD, perChunk: took / (PERIOD / chunkSize) }
}

/** The content of one period, written in one tick in many pieces, or in one. */
function writeBody (pieceSize: number): Line[] {
  const content: Buffer[] = []
  for (let at = 0; at < PERIOD; at += pieceSize) content.push(PATTERN.subarray(at, at + pieceSize))
  const writer = bodyWriter({ kind: 'chunked', length: Infinity })
  const took = time(() => {
    const parts: Part[] = []
    writer.write(content, PERIOD, parts)
    gather(parts)
  })
  return [{ what: `${size(PERIOD)} in pieces of ${size(pieceSize)}`, perByte: took / PERIOD, perPiece: took / content.length }]
}

/** Bytes of one piece as it arrives. */
const CUTS = [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536]

/** The cost of a chunk is that of its pieces, however many: nothing is read twice. */
function readSegmented (cut: number): Line[] {
  const encoded = http1.chunk(PATTERN.subarray(0, PERIOD))
  const took = readInPieces(encoded, cut)
  return [{ what: `one chunk of ${size(PERIOD)}, cut into pieces of ${size(cut)}`, perChunk: took, perPiece: took / Math.ceil(encoded.length / cut) }]
}

/** Nanoseconds to read `encoded` once, without those to put it back where the reader has moved its content. */
function readInPieces (encoded: Buffer, cut: number): number {
  const scratch = Buffer.from(encoded)
  const pieces: Buffer[] = []
  for (let at = 0; at < encoded.length; at += cut) pieces.push(scratch.subarray(at, at + cut))
  const restore = (): void => { encoded.copy(scratch) }
  const read = (): void => {
    const reader = new ChunkedReader(LIMITS)
    for (let i = 0; i < pieces.length; i++) reader.read(pieces[i])
    if (reader.error !== null) throw reader.error
  }
  read()
  if (scratch.equals(encoded)) return time(read)
  const both = time(() => {
    restore()
    read()
  })
  return both - time(restore)
}

function encode (chunkSize: number): Buffer {
  const chunks: Buffer[] = []
  for (let at = 0; at < PERIOD; at += chunkSize) chunks.push(http1.chunk(PATTERN.subarray(at, at + chunkSize)))
  return Buffer.concat(chunks)
}

const ROUNDS = 9
const ROUND_NS = 20e6

/** Nanoseconds of one call, in the round that was disturbed least. */
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
