// Parses the command line.

import { parseArgs } from 'node:util'

export const MEASURES = ['bulk', 'roundtrips', 'exchanges', 'items', 'idle', 'proxy', 'routes', 'growth', 'close', 'micro'] as const
export type Measure = typeof MEASURES[number]

export interface Options {
  only: ReadonlySet<Measure>
  /** Ids. Null stands for all. */
  peers: ReadonlySet<string> | null
  seconds: number
  rounds: number
  full: boolean
  check: boolean
  /** File that the chart is written to. */
  chart: string | null
}

const HELP = `npm run bench -- [options]

  --only ${MEASURES.join(',')}
                  which measures to run; default: all
  --peers a,b     which peers to measure; default: all of plugin, plugin-iterate, plugin-yield, plugin-write,
                  plugin-iterate-gc, plugin-yield-gc, plugin-items, plugin-node-<major>, net, net-bound, http, fastify,
                  fastify-pipeline, ws, fastify-websocket, http2, go-tutorial, go-best, go-full-duplex, hyper, bun, deno; of
                  items: items-yield, items-send, items-batches, items-fastify, items-fastify-mapper, items-websocket,
                  items-grpc, items-go, items-limit; of proxies: proxy, proxy-net, proxy-fastify, proxy-http-proxy-3,
                  proxy-httpxy, proxy-haproxy, proxy-haproxy-tcp, proxy-nginx, proxy-nginx-tcp
  --seconds n     how long one peer is measured in one round
  --rounds n      how many rounds are measured
  --full          more rounds, bodies of up to 10 GiB, and up to 50,000 open exchanges; also bulk over 8 connections, and upload and download alone
  --check         also print the targets and whether they were reached
  --chart file    also write the bar chart, as SVG

BENCH_NODES=/path/to/node,/path/to/node: other Node versions to run the plugin on; default: those in .nodes
`

/** Prints the help or what is wrong and ends the process, if there is nothing else to do. */
export function readOptions (): Options {
  let values
  try {
    values = parseArgs({
      options: {
        only: { type: 'string', default: MEASURES.join(',') },
        peers: { type: 'string' },
        seconds: { type: 'string' },
        rounds: { type: 'string' },
        full: { type: 'boolean', default: false },
        check: { type: 'boolean', default: false },
        chart: { type: 'string' },
        help: { type: 'boolean', default: false }
      }
    }).values
  } catch (error) {
    exitWithUsage((error as Error).message)
  }
  if (values.help) {
    console.log(HELP)
    process.exit()
  }
  const only = values.only!.split(',') as Measure[]
  const unknown = only.find((measure) => !MEASURES.includes(measure))
  if (unknown !== undefined) exitWithUsage(`There is no measure "${unknown}"`)
  const full = values.full!
  return {
    only: new Set(only),
    peers: values.peers === undefined ? null : new Set(values.peers.split(',')),
    seconds: parsePositive(values.seconds, full ? 0.5 : 0.2),
    rounds: parsePositive(values.rounds, full ? 11 : 5),
    full,
    check: values.check!,
    chart: values.chart ?? null
  }
}

function parsePositive (text: string | undefined, fallback: number): number {
  const value = text === undefined ? fallback : Number(text)
  return value > 0 ? value : exitWithUsage(`"${text}" is not a positive number`)
}

function exitWithUsage (message: string): never {
  console.error(`${message}\n\n${HELP}`)
  process.exit(2)
}
