// Sends rows and reads their results, over one connection. Measures the time until the last result has arrived, and checks all of them.

import { ROWS, type Result, type Row, resultOf, rowsService } from '../rows.ts'
import { Connection, type Target } from './connection.ts'
import { grpc } from './http2.ts'
import { http1 } from './http1.ts'
import type { Protocol, ResponseEvents } from './session.ts'
import { websocket } from './websocket.ts'

/** Rows 16 KiB at a time, or each as its own chunk. */
export type Shape = 'large' | 'single'

const LARGE = 16384

/** All rows once, as they are sent, and the content of their results. */
interface Traffic {
  path: string
  /** In chunks of `chunkSize` bytes of content, which `length` bytes encode. */
  encoded: Buffer
  chunkSize: number
  length: number
  results: Buffer
}

/** @returns seconds from opening the connection to the end of the last result */
export async function sendRows (target: Target, shape: Shape, times: number): Promise<number> {
  const traffic = trafficOf(target.protocol, shape)
  const start = process.hrtime.bigint()
  await new RowSender(target, traffic, times).finished
  return Number(process.hrtime.bigint() - start) / 1e9
}

/** Lets the limit go over all rows that often. @returns seconds */
export async function loop ({ port }: Target, times: number): Promise<number> {
  const start = process.hrtime.bigint()
  const answer = await (await fetch(`http://127.0.0.1:${port}/${times}`)).text()
  if (answer !== '') throw new Error(answer)
  return Number(process.hrtime.bigint() - start) / 1e9
}

class RowSender implements ResponseEvents {
  readonly finished: Promise<void>
  private readonly connection: Connection
  private readonly traffic: Traffic
  private readonly lastChunk: Buffer
  private left: number //    how often all rows are still to be sent, with those under way
  private at = 0 //          where in `encoded` the next write begins
  private toReceive: number
  private received = 0
  private resolve!: () => void
  private reject!: (error: Error) => void
  private readonly resume = (): void => this.send()

  constructor (target: Target, traffic: Traffic, times: number) {
    this.traffic = traffic
    this.lastChunk = target.protocol.lastChunk!
    this.left = times
    this.toReceive = traffic.results.length * times
    this.finished = new Promise((resolve, reject) => {
      this.resolve = resolve
      this.reject = reject
    })
    this.connection = new Connection(target, this, (error) => this.fail(error ?? new Error('The server closed the connection early')), this.resume)
    this.connection.socket.write(target.protocol.encodeHead(traffic.path, true, 'application/jsonl'))
    this.send()
  }

  private send (): void {
    const { connection: { socket, session }, traffic: { encoded, chunkSize, length } } = this
    while (this.left > 0) {
      const count = Math.min((encoded.length - this.at) / length, Math.floor(session.credit / chunkSize))
      if (count === 0) return
      const end = this.at + count * length
      const hasRoom = socket.write(encoded.subarray(this.at, end))
      session.consumeCredit(count * chunkSize)
      this.at = end % encoded.length
      if (this.at === 0) this.left--
      if (this.left === 0) {
        socket.write(this.lastChunk)
      } else if (!hasRoom) {
        socket.once('drain', this.resume)
        return
      }
    }
  }

  onData (bytes: Buffer, from: number, to: number): void {
    const { results } = this.traffic
    while (from < to) {
      const start = this.received % results.length
      const size = Math.min(to - from, results.length - start)
      if (results.compare(bytes, from, from + size, start, start + size) !== 0) {
        this.fail(new Error(`Wrong results near ${this.received}`))
        return
      }
      from += size
      this.received += size
    }
  }

  onEnd (): void {
    if (this.received !== this.toReceive) this.fail(new Error(`${this.received} bytes of results came instead of ${this.toReceive}`))
    this.connection.destroy()
    this.resolve()
  }

  private fail (error: Error): void {
    this.reject(error)
    this.connection.destroy()
  }
}

const cache = new Map<Protocol, Map<Shape, Traffic>>()

function trafficOf (protocol: Protocol, shape: Shape): Traffic {
  let byShape = cache.get(protocol)
  if (byShape === undefined) cache.set(protocol, byShape = new Map())
  let traffic = byShape.get(shape)
  if (traffic === undefined) byShape.set(shape, traffic = makeTraffic(protocol, shape))
  return traffic
}

/** Writes rows and results as a protocol has them. */
const WRITERS = new Map<Protocol, { path: string, row: (row: Row) => Buffer, result: (result: Result) => Buffer }>([
  [http1, { path: '/rows', row: toLine, result: toLine }],
  [websocket, { path: '/rows', row: toJson, result: toJson }],
  [grpc, { path: rowsService.Check.path, row: (row) => toMessage(rowsService.Check.requestSerialize(row)), result: (result) => toMessage(rowsService.Check.responseSerialize(result)) }]
])

function makeTraffic (protocol: Protocol, shape: Shape): Traffic {
  const { path, row, result } = WRITERS.get(protocol)!
  const rows = ROWS.map(row)
  const content = Buffer.concat(rows)
  // A message of WebSocket is one row, whatever the shape.
  const chunkSize = shape === 'large' && protocol !== websocket ? LARGE : rows[0].length
  const chunks: Buffer[] = []
  for (let at = 0; at < content.length; at += chunkSize) chunks.push(protocol.encodeChunk(content.subarray(at, at + chunkSize)))
  return { path, encoded: Buffer.concat(chunks), chunkSize, length: chunks[0].length, results: Buffer.concat(ROWS.map((row) => result(resultOf(row)))) }
}

function toJson (value: Row | Result): Buffer {
  return Buffer.from(JSON.stringify(value))
}

function toLine (value: Row | Result): Buffer {
  return Buffer.concat([toJson(value), Buffer.from('\n')])
}

/** Not compressed. */
function toMessage (bytes: Buffer): Buffer {
  const head = Buffer.alloc(5)
  head.writeUInt32BE(bytes.length, 1)
  return Buffer.concat([head, bytes])
}
