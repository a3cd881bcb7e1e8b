// npm run test:matrix -- [--node 20,26.0] [--fastify oldest,newest,5.9,6] [--override find-my-way@9.10.1] [FILE ...]
// npm run test:matrix -- --all [FILE ...]
//
// Runs the suite without the lock file, with the dependencies that users get, for each version of Node and of Fastify.
// Without options, these are the oldest and the newest supported versions. A Fastify outside of the peer range may fail.

import { appendFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { type Cell, allCells, mayFail, selectCells } from './cells.ts'
import { checkOut } from './checkout.ts'
import { killAll } from './commands.ts'
import { type Node, installNode } from './nodes.ts'
import { Table, describeOutcome } from './report.ts'
import { runSuite } from './suite.ts'

let interrupted = false

/** @returns whether everything passed that must pass */
async function runCells (cells: Cell[], files: string[], root: string): Promise<boolean> {
  const nodes = new Map<string, Node | null>()
  for (const { node } of cells) {
    if (!nodes.has(node)) nodes.set(node, await installNode(node, root))
  }
  const supported = new Table()
  const unsupported = new Table()
  let ran = 0
  let failures = 0
  for (const column of new Set(cells.map(({ column }) => column))) {
    const columnNodes = cells.flatMap((cell) => cell.column === column ? nodes.get(cell.node) ?? [] : [])
    if (columnNodes.length === 0) continue
    const mayColumnFail = mayFail(column)
    try {
      const checkout = await checkOut(column, root)
      const { fastify, ...others } = checkout.versions
      const heading = `Fastify ${fastify} (${Object.entries(others).map((other) => other.join(' ')).join(', ')})`
      for (const node of columnNodes) {
        console.log(`Node ${node.version}, ${heading}${mayColumnFail ? ': may fail' : ''}`)
        const outcome = await runSuite(node, checkout, files)
        console.log(`  ${describeOutcome(outcome)}`)
        ran++
        if (!mayColumnFail && outcome.failed > 0) failures++
        const table = mayColumnFail ? unsupported : supported
        table.add(node.version, heading, describeOutcome(outcome))
      }
      await rm(checkout.directory, { recursive: true, force: true, maxRetries: 5 })
    } catch (error) {
      if (interrupted) throw error
      console.log(`Fastify ${column.fastify}${mayColumnFail ? ', may fail' : ''}: ${(error as Error).message}`)
      if (!mayColumnFail) failures++
    }
  }
  printReport(supported, unsupported)
  return failures === 0 && (ran > 0 || cells.every(({ column }) => mayFail(column)))
}

function printReport (supported: Table, unsupported: Table): void {
  const parts = [!supported.isEmpty && supported, !unsupported.isEmpty && `May fail, because it is outside of the peer range:\n\n${unsupported}`].filter((part) => part !== false)
  const text = `\n${process.platform} ${process.arch}, passed assertions:\n\n${parts.join('\n\n')}\n`
  console.log(text)
  if (process.env.GITHUB_STEP_SUMMARY) appendFileSync(process.env.GITHUB_STEP_SUMMARY, text)
}

/** Splits `name@version`. */
function splitDependency (dependency: string): [string, string] {
  const at = dependency.lastIndexOf('@')
  return [dependency.slice(0, at), dependency.slice(at + 1)]
}

async function main (): Promise<void> {
  const { values, positionals: files } = parseArgs({
    allowPositionals: true,
    options: { node: { type: 'string' }, fastify: { type: 'string' }, all: { type: 'boolean' }, override: { type: 'string', multiple: true, default: [] } }
  })
  const cells = values.all ? allCells() : selectCells(values.node?.split(','), values.fastify?.split(','), Object.fromEntries(values.override.map(splitDependency)))
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      interrupted = true
      killAll()
    })
  }
  const root = await mkdtemp(join(tmpdir(), 'fastify-duplex-matrix-'))
  try {
    if (!await runCells(cells, files, root)) process.exitCode = 1
  } catch (error) {
    if (!interrupted) throw error
    process.exitCode = 1
  } finally {
    await rm(root, { recursive: true, force: true, maxRetries: 5 })
  }
}

main()
